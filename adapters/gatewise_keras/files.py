"""Keras's own files, ``.keras`` and ``.h5``: checked before Keras reads them.

What a file states is held against what is stored in it: its HDF5 is walked by a process of its own, under limits, and
the variables that its config asks for are added up before any is made. Nothing in a file is imported or run.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
import shutil
import subprocess
import sys
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gatewise.checkpoints import zips
from gatewise.checkpoints.reading import MOST_TEXT, parse_json
from gatewise.core.network import MOST_LAYERS
from gatewise.errors import FileError
from gatewise_keras import old_files
from gatewise_keras.reading import OWN_CODE, unknown_class

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

PARTS = ("constraint", "regularizer", "initializer")
"""How the keys end whose values act in training alone, or before it: a port can do without one that is not known."""

IMPORTED = ("keras", "keras_hub", "keras_cv", "keras_nlp")
"""Packages of which Keras imports whatever module a config names."""

NO_LAYERS = ("TypeSpec", "CompositeTensor", "__typespec__", "__lambda__")
"""Names of classes for which TensorFlow's types are looked up, or code is run, while a config is read."""

UNROLLED = 5_000
"""Steps that an unrolled layer may have: each is built anew."""

ROOM = 1 << 20
"""Numbers that a config may ask for without a file storing them: statistics, states, seeds."""

MOST_SIZE = (1 << 31) - 1
"""The largest whole number in a config: no axis is longer in any of Keras's backends."""

LENGTHS = ("batch_shape", "batch_input_shape", "n", "target_shape", "padding", "size")
"""Keys of a config under which lengths of axes stand that no weight has."""

SIZES = (
    *LENGTHS,
    *("units", "filters", "input_dim", "output_dim", "num_heads", "key_dim", "value_dim", "depth_multiplier"),
    *("kernel_size", "pool_size", "strides", "dilation_rate", "cropping", "groups"),
)
"""Keys of a config under which any size stands."""

_left_out: weakref.WeakKeyDictionary[Any, tuple[str, ...]] = weakref.WeakKeyDictionary()


def open_file(path: str) -> Any:
    """Return the model in a private copy of a ``.keras`` or ``.h5`` file, without running code that the file holds.

    Raises:
        FileError: The file is damaged, or states more than is stored in it.
        UnsupportedModelError: It holds code of its own.
    """
    name = Path(path).name
    with _Walk(path) as walk:  # It runs while Keras is imported.
        import keras

        import gatewise_keras.cells  # (registers our own cells, which the file may hold)
        import gatewise_keras.functions  # noqa: F401  (likewise)

        if not path.endswith(".keras"):
            walk.stored(name)  # Nothing else is asked of a file of HDF5 before it is known to be whole.
        try:
            text, version = _read_config(path)
            config = parse_json(text)
        except zipfile.BadZipFile:
            raise FileError(
                f"{name} cannot be read: it is no zip file, or not all of one.",
                "A .keras file is a zip file with config.json, metadata.json and model.weights.h5 in it.",
                "Save the model again with Keras 3; a file of HDF5 is called .h5.",
            ) from None
        except (ValueError, TypeError, OSError, KeyError, RecursionError, NotImplementedError, zlib.error) as error:
            raise FileError(
                f"{name} cannot be read: {_text(error)}.",
                "A .keras file is a zip file with config.json, metadata.json and model.weights.h5 in it; .h5 is HDF5.",
                "Save the model again with Keras 3, as .keras.",
            ) from None
        if path.endswith(".keras"):
            old_files.check_archive(path, version)
        changed = old_files.rewrite(config, name) if old_files.is_old(version) else copy.deepcopy(config)
        dropped = tuple(_drop_unknown(changed))
        _check_config(name, changed)
        wanted = _wanted(changed)
        _check_stored(name, wanted, walk.stored(name))
    if changed != config:
        _write_config(path, changed)
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    _left_out[model] = dropped
    return model


def check_file(path: str) -> None:
    """Raise ``FileError`` where the HDF5 of a file is damaged, or holds what Keras does not write."""
    with _Walk(path) as walk:
        walk.stored(Path(path).name)


def left_out(obj: Any) -> list[str]:
    """Return what of a model's file was not known and not needed, a sentence each."""
    return list(_left_out.get(obj, ()))


def _text(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]


# ── where the config is ─────────────────────────────────────────────────────────────────────────────────────────


def _read_config(path: str) -> tuple[str | bytes, object]:
    """Return the config of a file, and the version of Keras that wrote it, None where it does not say."""
    if path.endswith(".keras"):
        with open(path, "rb") as file, zips.checked(file) as archive:
            for wanted in (CONFIG, METADATA, WEIGHTS):
                if wanted not in archive.namelist():
                    raise ValueError(f"there is no {wanted} in it")
            for text in (CONFIG, METADATA):
                if archive.getinfo(text).file_size > MOST_TEXT:
                    raise ValueError(f"its {text} is of {archive.getinfo(text).file_size:,} bytes")
            about = parse_json(archive.read(METADATA))
            return archive.read(CONFIG), about.get("keras_version") if isinstance(about, dict) else None
    import h5py

    with h5py.File(path) as file:
        config, version = (file.attrs.get(key) for key in ("model_config", "keras_version"))
    config = config.decode() if isinstance(config, bytes) else config
    if not isinstance(config, str) or not config:
        raise ValueError("there is no config of a model in it, perhaps weights alone")
    return config, version


def _write_config(path: str, config: Any) -> None:
    """Put a config into a private copy of a file, in the place of its own."""
    text = json.dumps(config)
    if not path.endswith(".keras"):
        import h5py

        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = text
        return
    rewritten = f"{path}.new"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(rewritten, "w", zipfile.ZIP_STORED) as new:
        new.writestr(CONFIG, text)
        for member in archive.infolist():
            if member.filename != CONFIG and not member.is_dir():
                with archive.open(member) as source, new.open(member.filename, "w", force_zip64=True) as place:
                    shutil.copyfileobj(source, place, 1 << 20)
    os.replace(rewritten, path)


# ── what the config asks for ────────────────────────────────────────────────────────────────────────────────────


def _entries(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every dictionary in a config, the outer ones first."""
    todo = [config]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            yield each
            todo += each.values()
        elif isinstance(each, list):
            todo += each


def _is_known(entry: Any) -> bool:
    """Say whether Keras knows the class of an entry without importing anything."""
    import keras

    if not isinstance(entry, dict) or "class_name" not in entry:
        return True
    name, module = entry["class_name"], entry.get("module")
    if any(
        isinstance(each, str) and keras.saving.get_registered_object(each) is not None
        for each in (entry.get("registered_name"), name)
    ):
        return True
    if module is None and "registered_name" not in entry:
        return True  # A file of HDF5 names no modules; Keras looks the class up among its own.
    return isinstance(module, str) and (module == "builtins" or module.split(".")[0] in IMPORTED[:1])


def _drop_unknown(config: Any) -> Iterator[str]:
    """Take out what is not known and acts in training alone; yield a sentence for each."""
    import keras

    tables = {"constraint": keras.constraints, "regularizer": keras.regularizers, "initializer": keras.initializers}
    for entry in _entries(config):
        for key, value in entry.items():
            part = next((part for part in PARTS if key.endswith(part)), "")
            if not part or not isinstance(value, dict) or "class_name" not in value:
                continue
            name = value["class_name"]
            bare = "module" not in value and "registered_name" not in value
            if not _is_known(value) or (bare and isinstance(name, str) and not _is_own(name, tables[part])):
                entry[key] = None
                home = value.get("registered_name") or name
                who = entry.get("name", "A layer")
                yield f"{who}: its {key}, {home}, is not known here and was left out; it acts in training alone."


def _is_own(name: str, table: Any) -> bool:
    import keras

    return hasattr(table, name) or keras.saving.get_registered_object(name) is not None


def _check_config(name: str, config: Any) -> None:
    """Refuse a config that names code or modules to import, or more layers and larger sizes than can be."""
    layers = unrolled = 0
    steps = 1
    for entry in _entries(config):
        kind, module, inner = entry.get("class_name"), entry.get("module"), entry.get("config")
        layers += isinstance(inner, dict) and ("inbound_nodes" in entry or "trainable" in inner)
        if kind == "Lambda" and isinstance(inner, dict):
            # Keras refuses to load one and does not say which.
            raise unknown_class(str(inner.get("name")), "Lambda", OWN_CODE)
        if kind in NO_LAYERS:
            raise FileError(
                f"{name} holds a {kind}.", "Expected layers and plain values.", "Save the model without it."
            )
        if isinstance(module, str) and module.partition(".")[0] in IMPORTED and module not in sys.modules:
            raise FileError(
                f"{name} names the module {module}, which is not imported here.",
                "Nothing is imported because a file names it.",
                f"If you trust the file, import {module.partition('.')[0]} yourself and load it again.",
            )
        if module is None and "inbound_nodes" in entry and isinstance(kind, str) and is_operation(kind):
            raise FileError(
                f"{name} holds {kind}, an operation on tensors that is no layer.",
                "Keras writes operations to .h5 files, and cannot read them from there.",
                "Save the model as .keras where you made it: model.save('model.keras').",
            )
        unrolled += entry.get("unroll") is True
        for key, value in entry.items():
            numbers = [each for each in (value if isinstance(value, list) else [value]) if type(each) is int]
            if key in SIZES and any(abs(number) > MOST_SIZE for number in numbers):
                raise FileError(
                    f"{name}: {key} is {max(numbers, key=abs)}.",
                    f"No size of a layer is above {MOST_SIZE:,}.",
                    "Save the model again, or check that the file is whole.",
                )
            if key in LENGTHS:
                steps = max(steps, *numbers, 1)
    if layers > MOST_LAYERS:
        raise FileError(
            f"{name} holds {layers:,} layers.", f"At most {MOST_LAYERS:,} are read.", "Save its parts one by one."
        )
    if unrolled and steps > UNROLLED:
        raise FileError(
            f"{name} unrolls a loop over as many as {steps:,} steps.",
            f"At most {UNROLLED:,} are built one by one.",
            "Save the model with unroll=False; it computes the same.",
        )


def is_operation(kind: str) -> bool:
    """Say whether a class is one of Keras's operations on tensors, such as ``NotEqual``, and no layer."""
    import keras
    from keras.src import ops

    if hasattr(keras.layers, kind) or keras.saving.get_registered_object(kind) is not None:
        return False
    found = (getattr(module, kind, None) for module in vars(ops).values() if inspect.ismodule(module))
    return any(isinstance(each, type) and issubclass(each, keras.Operation) for each in found)


COUNTED = ("uninitialized_variables", "object_name_uids")
"""What Keras writes down when it makes a variable, or a name."""


def _wanted(config: Any) -> int:
    """Return how many numbers the variables of a config would hold; none is made."""
    import keras
    from keras.src.backend.common import global_state

    # Nobody may fill these variables later, and the names that Keras counts are the model's, which is made next.
    kept = {key: copy.copy(global_state.get_global_attribute(key)) for key in COUNTED}
    try:
        global_state.set_global_attribute(COUNTED[0], [])
        with keras.StatelessScope(initialize_variables=False):
            # Keras takes some of a config apart; and states are made beside the scope.
            model = _from_config(_stateless(config))
        wanted = sum(math.prod(variable.shape) for variable in model.variables)
    finally:
        for key, value in kept.items():
            global_state.set_global_attribute(key, value)
    if any(entry.get("stateful") is True for entry in _entries(config)):
        wanted += _largest(config, "units") * _largest(config, "batch_shape", first=True)
    return int(wanted)


def _check_stored(name: str, wanted: int, stored: int) -> None:
    """Refuse a config whose variables would hold more numbers than the file stores, before any is made."""
    if wanted > stored + max(ROOM, stored // 10):
        raise FileError(
            f"{name} asks for {wanted:,} numbers, and stores {stored:,}.",
            "Its config and its weights do not belong together.",
            "Save the model again, or check that the file is whole.",
        )


def _largest(config: Any, key: str, *, first: bool = False) -> int:
    """Return the largest number that a config has under a name, or at the start of the lists under it."""
    found = [entry[key] for entry in _entries(config) if key in entry]
    numbers = [each[0] if first and isinstance(each, list) and each else each for each in found]
    return max((number for number in numbers if type(number) is int), default=1)


def _stateless(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: False if key == "stateful" else _stateless(value) for key, value in config.items()}
    return [_stateless(each) for each in config] if isinstance(config, list) else config


def _from_config(config: Any) -> Any:
    """Return the model of a config, as Keras reads it from a file of either kind."""
    import keras

    if isinstance(config, dict) and "module" in config:
        return keras.saving.deserialize_keras_object(config | {"compile_config": None}, safe_mode=True)
    from keras.src.legacy.saving import json_utils, saving_options, saving_utils
    from keras.src.saving.serialization_lib import SafeModeScope

    with saving_options.keras_option_scope(use_legacy_config=True), SafeModeScope(True):
        return saving_utils.model_from_config(
            json_utils.decode(json.dumps(config)), custom_objects=keras.saving.get_custom_objects()
        )


# ── what is stored ──────────────────────────────────────────────────────────────────────────────────────────────


class _Walk:
    """A process of its own that goes through the HDF5 of a file, under limits: libhdf5 may crash on it, or never end.

    Args:
        path: The file; of a ``.keras`` the weights in it are meant.
    """

    def __init__(self, path: str) -> None:
        script = Path(__file__).with_name("walk.py")
        limit = str(20 + Path(path).stat().st_size // 100_000_000)
        self.patience = 2 * int(limit)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HDF5_")}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PATH": "", "HDF5_PLUGIN_PRELOAD": "::"}
        self._stored: int | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(script), path, limit],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def __enter__(self) -> _Walk:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def stored(self, name: str) -> int:
        """Return how many numbers the file stores.

        Raises:
            FileError: The walk found something that is not read here, or came to no end.
        """
        if self._stored is not None:
            return self._stored
        try:
            said, _ = self.process.communicate(timeout=self.patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            said, _ = self.process.communicate()
            said = "reading it comes to no end"
        number, _, _ = said.partition("\n")
        if self.process.returncode == 0 and number.isdecimal():
            self._stored = int(number)
            return self._stored
        raise FileError(
            f"{name} cannot be read: {said.strip() or 'its HDF5 is damaged'}.",
            "Expected HDF5 as Keras writes it: groups, and arrays of numbers that the file itself stores.",
            "Save the model again, or check that the file is whole.",
        )
