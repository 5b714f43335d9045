"""Reproducibility pipeline for ReCU (Xu et al., "Reviving the Dead Weights in Binary Neural Networks", ICCV 2021)."""

__version__ = "0.1.0"
