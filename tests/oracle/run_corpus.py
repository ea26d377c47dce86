"""Compares built explainers with the float64 oracle, model by model.

    python -m tests.oracle.run_corpus                                # every float model of the corpus, every rule
    python -m tests.oracle.run_corpus --light                        # the light models of the onnx package
    python -m tests.oracle.run_corpus --models 'squeeze*' --rules guided
    python -m tests.oracle.run_corpus other/*.onnx                   # any files

Columns: forward = worst relative difference of the explainer's outputs from the source's; map = max |difference| /
max |reference|, cosine and norm ratio of the explainer (as ONNX Runtime optimises it) against the oracle; forced = the
same against an oracle that takes its branches from a float32 run, with the explainer run without optimisation; this
tells a wrong derivative from a gate that sits on zero. Exit status 1 if a map does not agree or a forward difference
exceeds 1e-5.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.oracle.torch_oracle import Comparison, compare, float32_activations, oracle, randomise_weights, session

RULES = ("saliency", "deconvnet", "guided")
CORPUS = Path(os.environ.get("GBP_CORPUS") or Path(__file__).resolve().parents[3] / "shared" / "corpus")
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
FORWARD_TOLERANCE = 1e-5

SKIP = {
    "derived_squeezenet11_imagenet_ort_qdq_int8_perchannel": "quantised",
    "derived_squeezenet11_imagenet_ort_qoperator_uint8": "quantised",
    "derived_squeezenet11_imagenet_ortopt_extended": "fused operators",
    "matlab_allmatlab_net": "refused: custom operator",
    "onnx_tutorials_super_resolution": "IR 1 without attribute types or opset: ONNX Runtime does not load it",
    "ort_conv.int4_weights.qdq": "quantised",
    "ort_conv_qdq_external_ini": "refused: its external data is missing",
    "ort_conv_qdq_s8s8_perchannel": "quantised",
    "ort_conv_qdq_u8u8": "quantised",
    "ort_mauimodeltester_model": "quantised",
    "ort_qdq_multi_consumer": "quantised",
    "ort_qdq_multi_consumer_contrib": "quantised",
    "ort_squeezenet_tensor_input": "no float tensor output (class label and a map of scores)",
    "superres_prepost_opset18": "refused: onnxruntime-extensions operators",
    "tflite_coral_mobilenet_v1_0.25_128_quant": "quantised",
    "tflite_coral_mobilenet_v2_1.0_224_quant": "quantised",
    "tflite_mlperftiny_resnet8_cifar10_int8": "quantised",
    "winml_squeezenet_fp16": "fp16",
}
# Pattern -> (photograph, preprocessing); the first that fits counts.
DOG, DIGIT = "imagenet_n02092339_Weimaraner.JPEG", "wonnx_mnist_7.jpg"
PICTURES = (
    ("squeezenet11*", DOG, "bgr_mean"),
    ("mobilenetv2_tv*", DOG, "tv"),
    ("efficientnet_lite0*", DOG, "lite"),
    ("keras_mobilenet*", DOG, "tf"),
    ("keras_fer*", "imagenet_n02123045_tabby.JPEG", "tf"),
    ("keras_resnet8*", "imagenet_n02123045_tabby.JPEG", "raw"),
    ("mtcnn*", "pytorch_hub_dog_samoyed.jpg", "lite"),
    ("ultraface*", "pytorch_hub_dog_samoyed.jpg", "lite"),
    ("paddle*", "winml_hummingbird.jpg", "tf"),
    ("ort_fuse*", DOG, "raw"),
    ("*mnist_cntk", DIGIT, "raw"),
    ("wonnx*", DIGIT, "raw"),
    ("*mnist*", DIGIT, "unit"),
)
FREE_SIZES = {"paddle_ppocr_cls": (48, 192), "mtcnn_pnet": (60, 72)}


@dataclass(frozen=True)
class Row:
    model: str
    rule: str
    status: str  # "agrees", "forced" (with forced gates only), "DIFFERS", "FORWARD", "skipped", "error"
    note: str = ""
    forward: float | None = None
    map: Comparison | None = None
    forced: Comparison | None = None
    rectifiers: int = 0
    seconds: float = 0.0


def picture(path: Path, shape: tuple[int, ...], how: str) -> np.ndarray:
    """The photograph as an array of `shape` (NCHW or NHWC, 1 or 3 channels): short side to 8/7, centre crop."""
    from PIL import Image, ImageOps

    channels_last = shape[-1] in (1, 3) and shape[1] not in (1, 3)
    height, width = shape[1:3] if channels_last else shape[2:4]
    grey = (shape[-1] if channels_last else shape[1]) == 1
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("L" if grey else "RGB")
    image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR, bleed=1 / 16)
    x = np.asarray(image, np.float32)
    x = x[..., None] if grey else x
    if how == "tv":
        x = (x / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    elif how == "bgr_mean":
        x = x[..., ::-1] - (103.939, 116.779, 123.68)
    elif how == "lite":
        x = (x - 127) / 128
    elif how == "tf":
        x = x / 127.5 - 1
    elif how == "unit":
        x = x / 255
    x = x if channels_last else x.transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(x, shape), np.float32)


def feeds_for(name: str, inputs: list[Any], seed: int) -> dict[str, np.ndarray]:
    """A fitting photograph for an image input where the corpus has one, else seeded random numbers."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for info in inputs:
        if info.type != "tensor(float)":
            raise ValueError(f"input {info.name} is {info.type}")
        free = list(FREE_SIZES.get(name, (64, 64)))
        dims = enumerate(info.shape)
        shape = tuple(d if isinstance(d, int) and d > 0 else (1 if i == 0 else free.pop(0)) for i, d in dims)
        feeds[info.name] = rng.standard_normal(shape).astype(np.float32)
        if len(shape) == 4 and (shape[1] in (1, 3) or shape[3] in (1, 3)):
            for pattern, file, how in PICTURES:
                if fnmatch.fnmatch(name, pattern) and (CORPUS / "images" / file).is_file():
                    feeds[info.name] = picture(CORPUS / "images" / file, shape, how)
                    break
    return feeds


def image_input(feeds: dict[str, np.ndarray]) -> str:
    return next((n for n, v in feeds.items() if v.ndim >= 3), next(iter(feeds)))


def worst_forward(actual: dict[str, np.ndarray], source: dict[str, np.ndarray]) -> float:
    worst = 0.0
    for name, want in source.items():
        if isinstance(want, np.ndarray) and want.dtype.kind == "f" and want.size:
            scale = float(np.abs(want).max()) or 1.0
            worst = max(worst, float(np.abs(actual[name].astype(np.float64) - want).max()) / scale)
    return worst


def run_named(run: Any, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [o.name for o in run.get_outputs()]
    return dict(zip(names, run.run(names, feeds), strict=True))


def examine(name: str, model: onnx.ModelProto, rules: tuple[str, ...], seed: int) -> Iterator[Row]:
    """One row for each rule; an explainer that carries all of them."""
    import gbp_onnx

    started = time.perf_counter()
    try:
        source = session(model)
        feeds = feeds_for(name, source.get_inputs(), seed)
        plain = run_named(source, feeds)
        explainer = gbp_onnx.build(model, rules=rules)
        images = next(iter(feeds.values())).shape[0]
        asked = {**feeds, "target": np.full(images, -1, np.int64)}
        got = run_named(session(explainer), asked)
        exact = run_named(session(explainer, optimise=False), asked)
        gates = float32_activations(model, feeds)
    except Exception as e:  # the table goes on with the next model
        yield Row(name, "-", "error", f"{type(e).__name__}: {str(e).splitlines()[0][:200] if str(e) else ''}")
        return
    forward = worst_forward(got, plain)
    wrt = image_input(feeds)
    for rule in rules:
        try:
            chosen = oracle(model, feeds, rule=rule, wrt=wrt)  # type: ignore[arg-type]
            # The float32 run decides which class is the largest.
            top = plain[chosen.output].reshape(images, -1).argmax(1) if chosen.output in plain else chosen.target
            target = [int(t) for t in top]
            free = chosen
            if target != chosen.target:
                free = oracle(model, feeds, rule=rule, wrt=wrt, target=target)  # type: ignore[arg-type]
            held = oracle(model, feeds, rule=rule, wrt=wrt, target=target, gates_from=gates)  # type: ignore[arg-type]
            a = compare(got[f"attribution_{rule}"], free.attribution)
            b = compare(exact[f"attribution_{rule}"], held.attribution)
        except Exception as e:
            yield Row(name, rule, "error", f"{type(e).__name__}: {str(e)[:200]}")
            continue
        status = "agrees" if a.agrees else "forced" if b.agrees else "DIFFERS"
        if forward > FORWARD_TOLERANCE and a.agrees:
            status = "FORWARD"
        note = "" if np.any(free.attribution) else "the map is zero everywhere"
        if a.agrees and b.max_rel > 1e-4:
            note = "forced gates do not bring it below 1e-4"
        seconds = time.perf_counter() - started
        yield Row(name, rule, status, note, forward, a, b, len(free.rectifiers), seconds)
        started = time.perf_counter()


def models(args: argparse.Namespace) -> Iterator[tuple[str, Path, bool]]:
    """(name, file, whether its weights are to be drawn at random)."""
    if args.files:
        yield from ((p.stem, p, args.random) for p in args.files)
        return
    folder = LIGHT if args.light else CORPUS / "models"
    if not folder.is_dir():
        sys.exit(f"no folder {folder}: name the corpus in GBP_CORPUS")
    for path in sorted(folder.glob("*.onnx")):
        if fnmatch.fnmatch(path.stem, args.models):
            yield path.stem, path, args.light or args.random


def line(row: Row) -> str:
    def three(c: Comparison | None) -> str:
        return f"{c.max_rel:8.1e} {c.cosine:9.6f} {c.norm_ratio:8.5f}" if c else " " * 27

    forward = f"{row.forward:8.1e}" if row.forward is not None else " " * 8
    return (
        f"{row.model[:44]:44} {row.rule:9} {forward} | {three(row.map)} | {three(row.forced)} "
        f"| {row.rectifiers:4d} {row.seconds:5.1f}s {row.status:8} {row.note}"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.run_corpus", description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="model files in place of the corpus")
    parser.add_argument("--models", default="*", metavar="GLOB", help="names to take (default: all)")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--light", action="store_true", help="the onnx package's light models, with random weights")
    parser.add_argument("--random", action="store_true", help="draw the weights of every model at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON record for each row in place of the table")
    args = parser.parse_args(argv)
    if not args.json:
        head = f"{'max':>8} {'cosine':>9} {'norm':>8}"
        print(f"{'model':44} {'rule':9} {'forward':>8} | {head} | {head} | rect  time   (map | with forced gates)")
    bad = 0
    for name, path, random in models(args):
        if name in SKIP and not args.files:
            rows = iter([Row(name, "-", "skipped", SKIP[name])])
        else:
            model = randomise_weights(path, args.seed) if random else onnx.load(str(path))
            rows = examine(name, model, tuple(args.rules), args.seed)
        for row in rows:
            bad += row.status not in ("agrees", "skipped")
            print(json.dumps(asdict(row)) if args.json else line(row), flush=True)
    print(f"{bad} rows do not agree" if bad else "all rows agree", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
