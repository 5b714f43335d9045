"""Networks: one architecture family a file, and a registry from name to builder."""

from recu.models.registry import ModelName, available_models, build_model
from recu.models.variants import normalise_state_dict, recognise_variant

__all__ = ["ModelName", "available_models", "build_model", "normalise_state_dict", "recognise_variant"]
