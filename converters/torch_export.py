"""Export a torch image network to ONNX, with its preprocessing and labels in the metadata, and check that it is right.

    python converters/torch_export.py torchvision:resnet18 -o resnet18.onnx --weights resnet18.pt --labels labels.txt
    python converters/torch_export.py timm:mobilenetv3_small_100 -o small.onnx --dynamic-batch
    python converters/torch_export.py mypackage.nets:make_net -o net.onnx --preprocess unit --size 96 --exporter both

The network is one of torchvision or timm, or what a factory of your own returns (called without arguments; a module
object serves too). Nothing is downloaded: weights come from --weights, else they are random (--seed). The exported
file's outputs are compared with torch's on random inputs; if they differ, no file is written.

Needs: torch>=2.6, onnx, onnxruntime; onnxscript for the dynamo exporter; torchvision or timm for their networks.
Exit status: 0 done, 1 the exported model is not equal to torch's (no file), 2 usage, missing package, or bad input.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import importlib.util
import io
import json
import logging
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from gbp_onnx.errors import GbpError  # noqa: E402  (an installed package wins over the checkout)
from gbp_onnx.files import write_whole  # noqa: E402
from gbp_onnx.imaging.preprocess import PRESETS  # noqa: E402
from gbp_onnx.types import Preprocess  # noqa: E402

TOLERANCE = 1e-4  # max |onnxruntime - torch| / max |torch|, for each output
EXPORTERS = ("torchscript", "dynamo")
OPSETS = {"torchscript": (7, 20), "dynamo": (18, 23)}  # what the exporters of torch 2.13 write


class UsageError(Exception):
    """Something that the caller can put right; exit status 2."""


class ParityError(Exception):
    """The exported model is not the torch model; exit status 1."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?" with the nearest known names, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def need(package: str, why: str) -> Any:
    """Import `package`, or say how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UsageError(f"{why} needs {package}, which does not import ({error}): pip install {package}") from error


def import_torchvision(torch: Any) -> Any:
    """Import torchvision, also where its compiled operators do not load.

    torchvision registers shape functions for those operators when it is imported, which fails without them. No
    classification network uses them (they are nms, roi_align and the like), so the registration is left out then.
    """
    try:
        return need("torchvision", "this network")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise UsageError(f"torchvision does not import: {error}") from error
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    register = torch.library.register_fake

    def skipping(op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, str) and op.startswith("torchvision::"):
            return lambda function: function
        return register(op, *args, **kwargs)

    torch.library.register_fake = skipping
    try:
        return need("torchvision", "this network")
    finally:
        torch.library.register_fake = register


def from_torchvision(name: str, torch: Any) -> tuple[Any, Preprocess | None]:
    """The network of that name with random weights; ImageNet's preprocessing."""
    models = import_torchvision(torch).models
    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(f"torchvision has no classification network {name!r}{did_you_mean(name, known)}")
    extra = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    return models.get_model(name, weights=None, **extra), PRESETS["imagenet"]


def from_timm(name: str, torch: Any) -> tuple[Any, Preprocess | None]:
    """The network of that name with random weights, and the preprocessing that timm's own record of it asks for."""
    import_torchvision(torch)  # timm imports it
    with contextlib.redirect_stdout(sys.stderr):  # timm prints there when a part of the hub client does not load
        timm = need("timm", "this network")
    known = timm.list_models()
    if name.split(".")[0] not in known:
        raise UsageError(f"timm has no network {name!r}{did_you_mean(name, known)}")
    module = timm.create_model(name, pretrained=False, exportable=True)
    record = timm.data.resolve_model_data_config(module)
    interpolation = record["interpolation"]
    preprocess = Preprocess(
        f"timm:{name}",
        mean=tuple(round(255 * m, 4) for m in record["mean"]),
        std=tuple(round(255 * s, 4) for s in record["std"]),
        resize={"squash": "stretch", "border": "pad"}.get(record["crop_mode"], "crop"),
        crop_fraction=record["crop_pct"],
        interpolation=interpolation if interpolation in {"nearest", "bilinear", "bicubic", "lanczos"} else "bicubic",
        size=tuple(record["input_size"][1:]),
    )
    return module, preprocess


def from_factory(module_name: str, attribute: str, torch: Any) -> tuple[Any, Preprocess | None]:
    """What the factory returns, or the module object itself."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        try:
            source = importlib.import_module(module_name)
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            import_torchvision(torch)
            source = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(f"cannot import {module_name!r}: {type(error).__name__}: {error}") from error
    names = [name for name in dir(source) if not name.startswith("_")]
    if not hasattr(source, attribute):
        raise UsageError(f"{module_name} has no {attribute!r}{did_you_mean(attribute, names)}")
    made = getattr(source, attribute)
    if isinstance(made, type) or not isinstance(made, torch.nn.Module):
        try:
            made = made()
        except Exception as error:
            raise UsageError(f"{module_name}:{attribute}() failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, torch.nn.Module):
        raise UsageError(f"{module_name}:{attribute} gave a {type(made).__name__}, not a torch.nn.Module")
    return made, None


def load_weights(module: Any, path: Path, torch: Any) -> None:
    """Load a state dict strictly, reading tensors only (nothing in the file is executed)."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = "it holds more than tensors, or is damaged; write it with torch.save(module.state_dict(), path)"
        raise UsageError(f"cannot read the weights {path}: {why}") from error
    except Exception as error:
        raise UsageError(f"cannot read the weights {path}: not a file of torch.save ({error!r:.200})") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise UsageError(f"the weights {path} are no state dict (names to tensors) but a {type(state).__name__}")
    if all(str(name).startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    try:
        module.load_state_dict(state, strict=True)
    except (RuntimeError, AttributeError, TypeError) as error:
        lines = [line.strip()[:200] for line in str(error).splitlines()[:4]]
        raise UsageError(f"the weights {path} do not fit the network: {' '.join(lines)}") from error


def tensors(result: Any) -> list[Any]:
    """The output tensors of a network that returns one, a sequence or a mapping of them."""
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, list | tuple):
        return [tensor for part in result for tensor in tensors(part)]
    return [] if result is None else [result]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drop what the exporters print and log: graphs and tracebacks of errors that they raise as well."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for name in ("torch", "onnxscript"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield


def export(module: Any, example: Any, torch: Any, exporter: str, opset: int, dynamic_batch: bool) -> onnx.ModelProto:
    """Run one exporter; inputs "input", outputs "output" (or "output_0", ...)."""
    with torch.no_grad():
        count = len(tensors(module(example)))
    if not count:
        raise UsageError("the network returns no tensor")
    outputs = ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
    names = {"input_names": ["input"], "output_names": outputs, "opset_version": opset}
    try:
        with warnings.catch_warnings(), _silence():
            warnings.simplefilter("ignore")  # the exporters warn of their own future
            if exporter == "torchscript":
                axes = {name: {0: "N"} for name in ("input", *outputs)} if dynamic_batch else None
                buffer = io.BytesIO()
                torch.onnx.export(module, (example,), buffer, dynamo=False, dynamic_axes=axes, **names)
                return onnx.load_model_from_string(buffer.getvalue())
            shapes = ({0: torch.export.Dim("N", min=1)},) if dynamic_batch else None
            program = torch.onnx.export(
                module, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False, optimize=True, **names
            )
            model: onnx.ModelProto = program.model_proto
    except Exception as error:
        cause = error.__cause__ or error
        lines = [line for line in re.sub("\x1b\\[[0-9;]*m", "", str(cause)).splitlines() if line.strip()]
        raise UsageError(f"the {exporter} exporter failed: {type(cause).__name__}: {' '.join(lines[:3])}") from error
    written = {entry.domain: entry.version for entry in model.opset_import}[""]
    if written != opset:
        raise UsageError(f"the {exporter} exporter wrote opset {written}, not {opset}; ask for that one (--opset)")
    return model


def finish(model: onnx.ModelProto, metadata: dict[str, str]) -> bytes:
    """Write the metadata in, take the exporter's stack traces (paths of this machine) out, and serialize."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for node in nodes:
        kept = [entry for entry in node.metadata_props if "stack_trace" not in entry.key]
        if len(kept) != len(node.metadata_props):
            kept = [onnx.StringStringEntryProto(key=entry.key, value=entry.value) for entry in kept]
            del node.metadata_props[:]
            node.metadata_props.extend(kept)
    onnx.helper.set_model_props(model, {**{p.key: p.value for p in model.metadata_props}, **metadata})
    try:
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ParityError(f"the exporter wrote a model that is not valid ONNX: {error}") from error
    except ValueError as error:
        raise UsageError(f"the model does not fit into one file (2 GiB): {error}") from error


def parity(data: bytes, module: Any, torch: Any, shapes: list[tuple[int, ...]], seed: int) -> tuple[float, bool]:
    """Compare ONNX Runtime with torch on a random input of each shape.

    Gives the largest max |a - b| / max |b| over outputs and inputs, and whether the first image's outputs differ from
    input to input at all (if not, random weights have starved the network and the comparison says little).
    Raises ParityError where the difference exceeds TOLERANCE or an output is not finite.
    """
    runtime = need("onnxruntime", "the parity check")
    random = np.random.RandomState(seed)
    worst, firsts = 0.0, []
    try:
        session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
        for shape in shapes:
            x = random.standard_normal(shape).astype(np.float32)
            with torch.no_grad():
                wanted = [tensor.numpy() for tensor in tensors(module(torch.from_numpy(x)))]
            firsts.append(np.concatenate([np.ravel(b[:1]) for b in wanted]))
            for output, a, b in zip(session.get_outputs(), session.run(None, {"input": x}), wanted, strict=True):
                worst = max(worst, _difference(output.name, np.asarray(a), b))
    except ParityError:
        raise
    except Exception as error:
        raise ParityError(f"ONNX Runtime does not run the exported model: {error}") from error
    if worst > TOLERANCE:
        raise ParityError(f"ONNX Runtime and torch differ by {worst:.1e} relative (allowed: {TOLERANCE:.0e})")
    return worst, not np.allclose(firsts[0], firsts[-1], rtol=10 * TOLERANCE, atol=0)


def _difference(name: str, a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        raise ParityError(f"output {name!r} has the shape {a.shape}, torch's has {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ParityError(f"output {name!r} is not finite; other weights (--weights) or another --seed may help")
    return float(np.abs(a.astype(np.float64) - b).max() / max(float(np.abs(b).max()), 1e-12))


def parse_preprocess(value: str) -> Preprocess | None:
    """A preset's name, the path of a JSON record, "none" or "auto" (both None here)."""
    if value in {"auto", "none"}:
        return None
    if value in PRESETS:
        return PRESETS[value]
    if not value.endswith(".json"):
        raise UsageError(f"no preprocessing {value!r}{did_you_mean(value, [*PRESETS, 'auto', 'none'])}")
    try:
        record = json.loads(Path(value).read_text(encoding="utf-8"))
        return Preprocess(**record)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"cannot read the preprocessing {value}: {error}") from error


def fit_channels(preprocess: Preprocess, channels: int) -> Preprocess:
    """The record for a network with so many channels: grey where it has one and a single mean will do."""
    if channels == len(preprocess.channels):
        return preprocess
    if channels == 1 and len(preprocess.mean) == len(preprocess.std) == 1:
        return replace(preprocess, channels="L")
    what = f"--preprocess {preprocess.name} is for {len(preprocess.channels)} channels, the network has {channels}"
    raise UsageError(f"{what}; give a JSON record or none")


def read_labels(path: Path) -> list[str]:
    """One label a line; empty lines at the end do not count."""
    try:
        labels = path.read_text(encoding="utf-8").rstrip("\n").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the labels {path}: {error}") from error
    if not any(labels):
        raise UsageError(f"the labels {path} are empty")
    return [label.strip() for label in labels]


def choose(spec: str) -> Callable[[Any], tuple[Any, Preprocess | None]]:
    """The loader that `spec` asks for; it gets torch."""
    source, colon, name = spec.partition(":")
    if not colon or not source or not name:
        raise UsageError(
            f"{spec!r} names no network; write torchvision:NAME, timm:NAME or package.module:factory"
            + (f" (torchvision:{spec}?)" if spec.isidentifier() else "")
        )
    if source == "torchvision":
        return lambda torch: from_torchvision(name, torch)
    if source == "timm":
        return lambda torch: from_timm(name, torch)
    return lambda torch: from_factory(source, name, torch)


def parser() -> argparse.ArgumentParser:
    text = __doc__ or ""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("network", help="torchvision:NAME, timm:NAME or package.module:factory")
    add("-o", "--output", type=Path, required=True, help="the .onnx file; with --exporter both, .torchscript.onnx "
        "and .dynamo.onnx take its ending's place")  # fmt: skip
    add("--weights", type=Path, help="a state dict; read with weights_only=True")
    add("--exporter", choices=[*EXPORTERS, "both"], default="torchscript")
    add("--opset", type=int, help="default: 17, dynamo 18 (it writes none below)")
    add("--preprocess", default="auto", help=f"{', '.join(PRESETS)}, a JSON record (FILE.json), none, or auto: "
        "imagenet for torchvision, timm's own record, none for a factory")  # fmt: skip
    add("--labels", type=Path, help="a text file, one label a line")
    add("--size", type=int, help="height and width of the input; default: timm's record, else 224")
    add("--channels", type=int, default=3, help="default: 3")
    add("--dynamic-batch", action="store_true", help="leave the batch size open (N)")
    add("--seed", type=int, default=0, help="for random weights and the inputs of the parity check")
    return made


def opsets(args: argparse.Namespace) -> dict[str, int]:
    """{exporter: opset} as the options ask for it."""
    wanted = EXPORTERS if args.exporter == "both" else (args.exporter,)
    result = {name: max(17, OPSETS[name][0]) if args.opset is None else args.opset for name in wanted}
    for name, opset in result.items():
        low, high = OPSETS[name]
        if not low <= opset <= high:
            raise UsageError(f"--opset {opset}: the {name} exporter writes opsets {low} to {high}")
    return result


def output_paths(args: argparse.Namespace) -> dict[str, Path]:
    """{exporter: file}."""
    if args.output.suffix != ".onnx":
        raise UsageError(f"-o {args.output}: the name must end in .onnx")
    if args.exporter != "both":
        return {args.exporter: args.output}
    return {name: args.output.with_suffix(f".{name}.onnx") for name in EXPORTERS}


def run(args: argparse.Namespace) -> list[Path]:
    """Export as asked; everything is checked before the first file is written."""
    paths, levels, load = output_paths(args), opsets(args), choose(args.network)
    preprocess = parse_preprocess(args.preprocess)
    labels = read_labels(args.labels) if args.labels else None
    if args.weights and not args.weights.is_file():
        raise UsageError(f"cannot read the weights {args.weights}: there is no such file")
    if (args.size is not None and args.size < 1) or args.channels < 1:
        raise UsageError("--size and --channels must be 1 or more")
    torch = need("torch", "this converter")
    if "dynamo" in paths:
        need("onnxscript", "the dynamo exporter")
    torch.manual_seed(args.seed)
    module, own = load(torch)
    if args.weights:
        load_weights(module, args.weights, torch)
    module = module.float().eval()
    if args.preprocess == "auto":
        preprocess = own
    height, width = (args.size, args.size) if args.size else ((own and own.size) or (224, 224))
    metadata = {"source": f"{args.network}, torch {torch.__version__}"}
    if preprocess:
        record = replace(fit_channels(preprocess, args.channels), layout="NCHW", size=(height, width))
        metadata["gbp.preprocess"] = json.dumps(record.to_dict())
    if labels:
        metadata["gbp.labels"] = json.dumps(labels, ensure_ascii=False)
    batch = 2 if args.dynamic_batch else 1
    shape = (args.channels, height, width)
    example = torch.randn(batch, *shape)
    batches = (1, 3) if args.dynamic_batch else (1, 1)
    files: dict[Path, bytes] = {}
    for exporter, path in paths.items():
        try:
            model = export(module, example, torch, exporter, levels[exporter], args.dynamic_batch)
        except UsageError:
            raise
        except Exception as error:  # the network's own forward pass
            raise UsageError(f"the network does not run on {(batch, *shape)}: {error}") from error
        _check_labels(model, labels)
        data = finish(model, {**metadata, "exporter": exporter})
        worst, alive = parity(data, module, torch, [(n, *shape) for n in batches], args.seed)
        print(f"{exporter}: equal to torch within {worst:.1e} relative", file=sys.stderr)
        if not alive:
            print("warning: the outputs hardly depend on the input with these weights", file=sys.stderr)
        files[path] = data
    if not preprocess:
        print("no preprocessing was written (--preprocess)", file=sys.stderr)
    for path, data in files.items():
        with write_whole(path) as temporary:
            temporary.write_bytes(data)
    return list(files)


def _check_labels(model: onnx.ModelProto, labels: list[str] | None) -> None:
    dims = model.graph.output[0].type.tensor_type.shape.dim
    classes = dims[1].dim_value if len(dims) > 1 else 0
    if labels and classes and len(labels) != classes:
        raise UsageError(f"{len(labels)} labels for {classes} classes")


def main(argv: list[str] | None = None) -> int:
    try:
        files = run(parser().parse_args(argv))
    except ParityError as error:
        print(f"failed: {error}\nno file was written", file=sys.stderr)
        return 1
    except (UsageError, GbpError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in files:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
