"""The program behind `recu bench`: speed, memory and start-up against the plain implementation in `reference`."""
