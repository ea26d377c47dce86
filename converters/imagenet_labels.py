"""Write models/imagenet_labels.txt: the 1000 ImageNet class names, one a line, in the order of the model's output.

    python converters/imagenet_labels.py [timm-1.0.31-py3-none-any.whl] [-o models/imagenet_labels.txt]

The words come from the wheel of timm 1.0.31 (Apache-2.0), which lists the synsets of ImageNet-1k in order and the
WordNet lemmas of each synset. Without an argument pip downloads the wheel. Nothing in it is executed.
A class is called by its first lemma; where two classes share that word, see `class_names`.

Exit status: 0 done, 2 the wheel is missing or is another one.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from gbp_onnx.errors import GbpError  # noqa: E402  (an installed package wins over the checkout)
from gbp_onnx.files import write_whole  # noqa: E402

PACKAGE = "timm==1.0.31"
SHA256 = "5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7"
SYNSETS = "timm/data/_info/imagenet_synsets.txt"
LEMMAS = "timm/data/_info/imagenet_synset_to_lemma.txt"

# The only two synsets of ImageNet-1k that have one lemma and share it.
SAME_ONLY_LEMMA = {"n02012849": "crane (bird)", "n03126707": "crane (machine)"}


def class_names(synsets: list[str], lemmas: dict[str, list[str]]) -> list[str]:
    """One name for each synset, no two equal (upper and lower case taken as equal).

    The first lemma; where several synsets share it, those with more lemmas take their second one
    ("Cardigan Welsh corgi" beside "cardigan"), and the cranes say which they are.
    """
    first = Counter(lemmas[s][0].casefold() for s in synsets)
    names = []
    for synset in synsets:
        words = lemmas[synset]
        shared = first[words[0].casefold()] > 1
        names.append(SAME_ONLY_LEMMA.get(synset) or words[1 if shared and len(words) > 1 else 0])
    doubles = [name for name, count in Counter(n.casefold() for n in names).items() if count > 1]
    if doubles:
        raise ValueError(f"class names are not unique: {doubles}")
    return names


def read_wheel(data: bytes) -> list[str]:
    """The 1000 class names from the bytes of the wheel."""
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        synsets = wheel.read(SYNSETS).decode("utf-8").split()
        lines = wheel.read(LEMMAS).decode("utf-8").splitlines()
    rows = (line.split("\t", 1) for line in lines if "\t" in line)
    return class_names(synsets, {synset: words.split(", ") for synset, words in rows})


def download(package: str, sha256: str, folder: Path, *flags: str) -> Path:
    """Let pip fetch `package` into `folder`, refusing any file whose sha256 is another one."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{package} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *flags, "-r", str(wanted), "-d"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    files = [path for path in folder.iterdir() if path != wanted]
    if done.returncode or len(files) != 1:
        raise FileNotFoundError(f"pip could not download {package}:\n{done.stderr.strip()}")
    return files[0]


def main(argv: list[str] | None = None) -> int:
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", nargs="?", type=Path, help=f"the wheel of {PACKAGE}; default: download it with pip")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "models" / "imagenet_labels.txt")
    args = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            data = (args.wheel or download(PACKAGE, SHA256, Path(folder), "--only-binary", ":all:")).read_bytes()
        if hashlib.sha256(data).hexdigest() != SHA256:
            raise ValueError(f"{args.wheel}: not the wheel of {PACKAGE} (its sha256 is another one)")
        with write_whole(args.output) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in read_wheel(data)), encoding="utf-8", newline="\n")
    except (OSError, ValueError, GbpError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
