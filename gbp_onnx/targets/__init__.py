"""What can be explained besides a class: one entry or a slice of any output, a mask, a box, a similarity, a seed.

forms         the targets as objects, and as the strings that stand for them everywhere
scene         what a model returned for one image, and what is known about it
region        a part of the photograph, on the grid of an output
segmentation  a class over its mask
detection     the score of a box, in the layouts that detectors have
similarity    the cosine between two images' embeddings
scalar        what comes out: a seed, and in words what it explains
choose        form and scene -> scalar

Data flow: form + scene -> scalar -> the explainer runs the model again with the scalar's seed.
"""

from gbp_onnx.targets.forms import Box, Index, Mask, Seed, Similar

__all__ = ["Box", "Index", "Mask", "Seed", "Similar"]
