"""Runs onnx.checker and strict shape inference over models.

stdin: a JSON list of paths. stdout: a JSON object from each path to {"checker", "inference"}: null
where the model passes, else the first line of the objection.
"""

import json
import sys

import onnx


def objection(check):
    try:
        check()
    except Exception as error:  # The checker and inference have several kinds.
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return None


def infer(path):
    onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True)


def main():
    found = {}
    for path in json.load(sys.stdin):
        found[path] = {
            "checker": objection(lambda: onnx.checker.check_model(path)),
            "inference": objection(lambda: infer(path)),
        }
    json.dump(found, sys.stdout)


main()
