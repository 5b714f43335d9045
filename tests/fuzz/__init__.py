"""Whatever is fed in: a result or one readable line."""
