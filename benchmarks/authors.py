"""Our model beside the authors' own code: seconds per image and per training step.

    python benchmarks/authors.py CHECKOUT [--batch-sizes 1,8] [--precisions float32]

CHECKOUT is a checkout of github.com/tobran/GALIP. Both sides have the same random
weights and go from token ids to uint8 images, or through a whole training step with
the text encoder. They take turns, so that a busy machine slows both. The columns `x`
are the authors' time divided by ours: 2 means that we are twice as fast. `dB` is the
PSNR between our images and those of their code as it is, in the same precision.

The authors' code runs as it is (`eager`), in the layout channels last, and compiled
where there is a C++ compiler. In bfloat16 their weights are bfloat16 for images, and a
training step runs under autocast.
"""

import argparse
import collections
import pathlib
import statistics
import tempfile

import common
import numpy as np
from sides import Side

FORMS = ("eager", "channels last", "compiled")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", help="folder of the authors' repository")
    parser.add_argument("--batch-sizes", default="1,8", help="of images")
    parser.add_argument("--step-batch-sizes", default="4", help="of training steps")
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--backends", default=",".join(common.installed()))
    parser.add_argument("--forms", default=",".join(FORMS), help="of the authors' code")
    parser.add_argument("--rounds", type=int, default=5, help="turns for images")
    parser.add_argument("--step-rounds", type=int, default=2, help="for training steps")
    parser.add_argument("--quick", action="store_true", help="one image, one turn")
    parser.add_argument("--cores", type=int, help="use so many; all by default")
    parser.add_argument("--out", help="JSON file to write")
    args = parser.parse_args()
    common.keep_to(args.cores)
    if not pathlib.Path(args.checkout, "code", "models", "GALIP.py").is_file():
        parser.error(f"{args.checkout} has no code/models/GALIP.py")
    if args.quick:
        args.batch_sizes, args.step_batch_sizes, args.rounds = "1", "", 1
    rows = []
    for precision in _list(args.precisions):
        with tempfile.TemporaryDirectory() as folder:
            run = Run(args, precision, folder)
            for batch in map(int, _list(args.batch_sizes)):
                rows += run.images(batch)
            for batch in map(int, _list(args.step_batch_sizes)):
                rows += run.steps(batch)
    common.report("authors", rows, args.out)


def _list(text):
    return [x for x in text.split(",") if x]


class Run:
    """Turns of both sides in one precision."""

    def __init__(self, args, precision, folder):
        self.checkout, self.folder = args.checkout, pathlib.Path(folder)
        self.precision = precision
        self.rounds, self.step_rounds = args.rounds, args.step_rounds
        self.backends = _list(args.backends)
        self.forms = [
            f for f in _list(args.forms) if f != "compiled" or common.has_compiler()
        ]

    def images(self, batch):
        """Take turns with one backend after the other. Return the rows."""
        rows = []
        with self._side("authors") as theirs:
            for backend in self.backends:
                answers = collections.defaultdict(list)
                with self._side(backend) as ours:
                    for _ in range(self.rounds):
                        for form in self.forms:
                            self._image(theirs, answers, form, form, batch)
                        self._image(ours, answers, backend, "compiled", batch)
                rows += self._rows("image", batch, answers)
        return rows

    def steps(self, batch):
        """Take turns, one process in memory at a time. Return the rows."""
        answers = collections.defaultdict(list)
        for _ in range(self.step_rounds):
            for name in ("authors", *self.backends):
                with self._side(name) as side:
                    for form in self.forms if name == "authors" else ["compiled"]:
                        key = form if name == "authors" else name
                        request = {"form": form, "batch": batch, "repeats": 3}
                        ask(side, answers[key], task="step", **request)
        return self._rows("step", batch, answers)

    def _side(self, name):
        options = ["--weights", str(self.folder / "weights.npz")]
        options += ["--checkout", self.checkout] * (name == "authors")
        return Side(name, self.precision, *options)

    def _image(self, side, answers, name, form, batch):
        request = {"batch": batch, "save": str(self._file(name, batch))}
        ask(side, answers[name], task="image", form=form, **request)

    def _file(self, name, batch):
        return self.folder / f"{name} {batch}.npy"

    def _rows(self, task, batch, answers):
        images = batch if task == "image" else 1
        times = {
            name: [t / images for answer in found for t in answer.get("times", [])]
            for name, found in answers.items()
        }
        medians = {name: statistics.median(t) for name, t in times.items() if t}
        rows = []
        for name, found in answers.items():
            is_ours = name in self.backends
            row = {"what": task, "precision": self.precision, "batch": batch}
            row["code"] = f"{'ours' if is_ours else 'authors'}, {name}"
            if name in medians:
                row |= {"s": medians[name], "fastest s": min(times[name])}
                row["peak GiB"] = max(answer.get("peak GiB", 0) for answer in found)
            if name in medians and is_ours:
                theirs = [form for form in self.forms if form in medians]
                row |= {f"x {form}": medians[form] / medians[name] for form in theirs}
                row["dB"] = self._psnr(name, batch) if task == "image" else None
            row["error"] = next((a["error"] for a in found if "error" in a), None)
            common.keep(rows, row)
        return rows

    def _psnr(self, name, batch):
        files = [self._file(x, batch) for x in (name, "eager")]
        if not all(file.exists() for file in files):
            return None
        ours, theirs = (np.load(file).astype("float32") for file in files)
        error = np.mean((ours - theirs) ** 2)
        return 10 * np.log10(255**2 / error).item() if error else "same"


def ask(side, answers, **request):
    """Add the answer of a side to its answers, unless it failed before."""
    if not any("error" in answer for answer in answers):
        answers.append(side.ask(**request))


if __name__ == "__main__":
    main()
