"""The same numbers, faster: forms that stand in for exactly known layers and are held to `recu.binarisers` by tests."""
