"""``python -m gbp_onnx``: the command line."""

from gbp_onnx.cli import main

if __name__ == "__main__":
    main()
