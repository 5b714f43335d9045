"""The fault suite: `python -m tests.chaos --kills N --seed S` breaks everything that can break and counts losses.

`forking` runs `recu` commands in children that can be killed within milliseconds, `laboratory` knows the commands and
compares their results with undisturbed ones, `kills`, `full_disk`, `damage`, `surroundings`, `tracking` and `workflow`
hold the faults, `ledger` the table.
"""
