"""The bench stage: speed, memory and start-up of this package against the plain reference in benchmarks/."""

from recu.stages.bench.benchmark import BenchSettings, bench

__all__ = ["BenchSettings", "bench"]
