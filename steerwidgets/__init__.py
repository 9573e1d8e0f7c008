"""See, build, ablate and steer with the features of sparse autoencoders, inside a notebook."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Name -> module that holds it. Resolved on first use: `import steerwidgets` loads no torch.
_NAMES = {
    "load": "steerwidgets.engine.load",
    "saes": "steerwidgets.engine.registry",
    "read_labels": "steerwidgets.core.label_files",
    "Neuronpedia": "steerwidgets.study.neuronpedia",
    "export_vector": "steerwidgets.study.vector_files",
    "resume": "steerwidgets.engine.ndif",
    "SteeredModel": "steerwidgets.engine.model",
    "Generation": "steerwidgets.engine.model",
    "HookPoint": "steerwidgets.core.hooks",
    "SAE": "steerwidgets.core.sae",
    "FeatureSet": "steerwidgets.core.features",
    "SteeringVector": "steerwidgets.core.vectors",
    "Add": "steerwidgets.core.interventions",
    "Ablate": "steerwidgets.core.interventions",
    "Clamp": "steerwidgets.core.interventions",
    "compare": "steerwidgets.study.compare",
    "FeatureComparison": "steerwidgets.study.compare",
    "contrast": "steerwidgets.study.contrast",
    "keep_distinct": "steerwidgets.study.contrast",
    "pca_contrast": "steerwidgets.study.contrast",
    "feature_vector": "steerwidgets.study.contrast",
    "feature_table": "steerwidgets.study.contrast",
    "xray": "steerwidgets.study.xray",
    "import_vector": "steerwidgets.study.foreign",
    "as_code": "steerwidgets.study.code",
    "VectorBuilder": "steerwidgets.widgets.builder",
    "dose_response": "steerwidgets.study.dose",
    "Task": "steerwidgets.study.tasks",
    "TaskSuite": "steerwidgets.study.tasks",
    "sweep": "steerwidgets.study.sweep",
    "SteeringPlayground": "steerwidgets.widgets.playground",
    "SweepResult": "steerwidgets.study.results",
    "prompt_pairs": "steerwidgets.study.pairs",
    "FeatureComparator": "steerwidgets.widgets.comparator",
    "AblationPicker": "steerwidgets.widgets.picker",
    "LinkedMaps": "steerwidgets.widgets.linked",
    "GreedyAblation": "steerwidgets.study.greedy",
    "greedy_ablation": "steerwidgets.study.greedy",
    "estimate_ablation": "steerwidgets.study.ablation",
    "answers_after": "steerwidgets.study.ablation",
    "AblationResult": "steerwidgets.study.ablation",
    "ablate_each": "steerwidgets.study.ablation",
}
_MODULES = {"tasks": "steerwidgets.study.tasks", "similarity": "steerwidgets.study.similarity"}
__all__ = [*_NAMES, *_MODULES, "__version__"]

if TYPE_CHECKING:
    from steerwidgets.core.features import FeatureSet as FeatureSet
    from steerwidgets.core.hooks import HookPoint as HookPoint
    from steerwidgets.core.interventions import Ablate as Ablate
    from steerwidgets.core.interventions import Add as Add
    from steerwidgets.core.interventions import Clamp as Clamp
    from steerwidgets.core.label_files import read_labels as read_labels
    from steerwidgets.core.sae import SAE as SAE
    from steerwidgets.core.vectors import SteeringVector as SteeringVector
    from steerwidgets.engine.load import load as load
    from steerwidgets.engine.model import Generation as Generation
    from steerwidgets.engine.model import SteeredModel as SteeredModel
    from steerwidgets.engine.ndif import resume as resume
    from steerwidgets.engine.registry import saes as saes
    from steerwidgets.study import similarity as similarity
    from steerwidgets.study import tasks as tasks
    from steerwidgets.study.ablation import AblationResult as AblationResult
    from steerwidgets.study.ablation import ablate_each as ablate_each
    from steerwidgets.study.ablation import answers_after as answers_after
    from steerwidgets.study.ablation import estimate_ablation as estimate_ablation
    from steerwidgets.study.code import as_code as as_code
    from steerwidgets.study.compare import FeatureComparison as FeatureComparison
    from steerwidgets.study.compare import compare as compare
    from steerwidgets.study.contrast import contrast as contrast
    from steerwidgets.study.contrast import feature_table as feature_table
    from steerwidgets.study.contrast import feature_vector as feature_vector
    from steerwidgets.study.contrast import keep_distinct as keep_distinct
    from steerwidgets.study.contrast import pca_contrast as pca_contrast
    from steerwidgets.study.dose import dose_response as dose_response
    from steerwidgets.study.foreign import import_vector as import_vector
    from steerwidgets.study.greedy import GreedyAblation as GreedyAblation
    from steerwidgets.study.greedy import greedy_ablation as greedy_ablation
    from steerwidgets.study.neuronpedia import Neuronpedia as Neuronpedia
    from steerwidgets.study.pairs import prompt_pairs as prompt_pairs
    from steerwidgets.study.results import SweepResult as SweepResult
    from steerwidgets.study.sweep import sweep as sweep
    from steerwidgets.study.tasks import Task as Task
    from steerwidgets.study.tasks import TaskSuite as TaskSuite
    from steerwidgets.study.vector_files import export_vector as export_vector
    from steerwidgets.study.xray import xray as xray
    from steerwidgets.widgets.builder import VectorBuilder as VectorBuilder
    from steerwidgets.widgets.comparator import FeatureComparator as FeatureComparator
    from steerwidgets.widgets.linked import LinkedMaps as LinkedMaps
    from steerwidgets.widgets.picker import AblationPicker as AblationPicker
    from steerwidgets.widgets.playground import SteeringPlayground as SteeringPlayground


def __getattr__(name: str) -> Any:
    if name not in _NAMES and name not in _MODULES:
        raise AttributeError(f"module 'steerwidgets' has no attribute {name!r}")
    try:
        module = importlib.import_module(_NAMES.get(name) or _MODULES[name])
        value = getattr(module, name) if name in _NAMES else module
    except (ImportError, AttributeError) as error:
        lacking = error.name if isinstance(error, ImportError) else getattr(error.obj, "__name__", None)
        # Another package that is missing or broken speaks for itself.
        if not str(lacking).startswith("steerwidgets."):
            raise
        raise ImportError(
            f"sw.{name} cannot be loaded ({error}). Most likely steerwidgets was updated while Python ran, so that old "
            "and new parts meet: restart the kernel. If that does not help, install steerwidgets again."
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
