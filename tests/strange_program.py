"""A program that answers JSON lines, and in one thing, which its first argument names, answers wrongly."""

import json
import os
import sys

wrong = sys.argv[1]
about = {"name": "strange", "dtypes": ["float64"], "arguments": {"lr": 0.01, "weight_decay": 0.0}, "changes": True}
ABOUT = {
    "arguments are a list": {"arguments": ["lr"]},
    "a dtype is no list": {"dtypes": "float64"},
    "a default is text": {"arguments": {"lr": "fast", "weight_decay": 0.0}},
    "the name is no text": {"name": "\ud800\x1b[31m", "version": None},
    "the state has no names": {"state": True},
}
STEP = {
    "numbers are text": lambda p: {"params": [[str(x) for x in p[0]]]},
    "numbers are lists": lambda p: {"params": [[[x] for x in p[0]]]},
    "a number is too large": lambda p: {"params": [[10**400 for x in p[0]]]},
    "numbers are null": lambda p: {"params": [[None for x in p[0]]]},
    "shapes are null": lambda p: {"params": p, "shapes": None},
    "wrote is a number": lambda p: {"params": p, "wrote": 3},
    "there is nothing": lambda p: {},
    "it is a list": lambda p: p,
}


def say(answer):
    end = "\r\n\r\n" if wrong == "lines end as on Windows" else "\n"
    sys.stdout.write(json.dumps(answer) + end)
    sys.stdout.flush()


if wrong == "an endless line":
    while True:
        sys.stdout.write("x" * 2**20)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "describe":
        if wrong == "it is no UTF-8":
            sys.stdout.buffer.write(b"caf\xe9\n")
            sys.stdout.flush()
        say(about | ABOUT.get(wrong, {}))
    elif asked["do"] == "start":
        params, given = asked["params"], asked["given"]
        say({"error": "no \x00 \x1b[31m \ud800"} if wrong == "an error that is not printable" else {"params": params})
    elif asked["do"] == "step":
        rate = asked["changed"].get("lr", given.get("lr", 0.01))
        decay = given.get("weight_decay", 0.0)
        params = [
            [p - rate * (g + decay * p) for p, g in zip(*both, strict=True)] for both in zip(params, asked["grads"], strict=True)
        ]
        say(STEP.get(wrong, lambda p: {"params": p})(params))
        if wrong == "it answers twice":
            say({"params": params})
        if wrong == "it floods":
            while True:
                say({"params": params})
        if wrong == "what it started lives on":
            os.system("sleep 1000 &")
            os._exit(0)
    else:
        say({"state": [1, 2]})
