"""Audits: explanations as a check on models as they are deployed.

`audit` is what callers use. A configuration (config.py) names a model, images and checks (checks/, one file each); a
run (run.py) gives every image's checks one shared set of explanations (case.py), keeps what is measured (store.py),
judges it (judge.py) and returns the report's record (gbp_onnx/report).
"""
