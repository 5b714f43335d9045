"""Networks in forms that other programs read: packed bits, ONNX, QONNX, safetensors."""
