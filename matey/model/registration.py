"""Makes transformers' AutoConfig and AutoModel know MATEY, without an import of either before somebody uses them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def _register_config(auto: ModuleType) -> None:
    config = import_module("matey.model.configuration").MateyConfig
    auto.AutoConfig.register(config.model_type, config)


def _register_model(auto: ModuleType) -> None:
    model = import_module("matey.model.matey").MateyModel
    auto.AutoModel.register(model.config_class, model)


REGISTER: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.modeling_auto": _register_model,
}


class _Waiting(MetaPathFinder):
    """Registers once a module of transformers has been imported: it and the network take a second to import."""

    def __init__(self, awaited: str) -> None:
        self._awaited = awaited

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._awaited:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        assert spec is not None and spec.loader is not None, f"{name} is about to be imported"
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            REGISTER[name](module)

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]  # of this one loader
        return spec


def register_with_transformers() -> None:
    """Register now where transformers is in use already, else as soon as it is."""
    for name, register in REGISTER.items():
        if name in sys.modules:
            register(sys.modules[name])
        else:
            sys.meta_path.insert(0, _Waiting(name))
