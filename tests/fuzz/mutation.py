"""Bytes with a few things wrong: flipped bits, cuts, insertions, repeated and moved parts."""

from hypothesis import strategies as st


@st.composite
def mutated(draw, original: bytes, most: int = 4) -> bytes:
    """`original` after one to `most` changes; it may come out unchanged."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, most))):
        content = _changed(draw, content)
    return bytes(content)


def _changed(draw, content: bytearray) -> bytearray:
    if not content:
        return content
    at = draw(st.integers(0, len(content) - 1))
    length = draw(st.integers(1, 64))
    kind = draw(st.sampled_from(("flip", "cut", "insert", "overwrite", "remove", "repeat")))
    if kind == "flip":
        content[at] ^= 1 << draw(st.integers(0, 7))
        return content
    if kind == "cut":
        return content[:at]
    if kind == "insert":
        return content[:at] + draw(st.binary(min_size=1, max_size=length)) + content[at:]
    if kind == "overwrite":
        return content[:at] + draw(st.binary(min_size=length, max_size=length)) + content[at + length :]
    if kind == "remove":
        return content[:at] + content[at + length :]
    return content[:at] + content[at : at + length] * 2 + content[at + length :]
