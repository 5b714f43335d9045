"""Networks: one architecture family a file, and a registry from name to builder."""

from recu.experiment.networks import ModelName, available_models
from recu.models.build import build_model
from recu.models.variants import canonical_names, normalise_state_dict, recognise_variant, removed_prefixes

__all__ = [
    "ModelName",
    "available_models",
    "build_model",
    "canonical_names",
    "normalise_state_dict",
    "recognise_variant",
    "removed_prefixes",
]
