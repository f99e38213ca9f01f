"""A run that is killed again and again ends in the weights of one that is not.

Bit for bit. The processes are forked from one that has only imported what it takes, so
that ten of them are bearable, on the backend that compiles nothing. On the others a run
is resumed once, in test_run.py, bit for bit as well.
"""

import json
import random
import signal

import child
import keras
import pytest
import tiny
from drawn import draw_circles
from marks import slow_on_torch
from outcome import assert_same, contents

pytestmark = pytest.mark.every_backend

STEPS = 60
KILLS = 10

# argv: the architecture, the settings, then for each run its folder, and seconds until
# it is killed, "write" for a death inside of a checkpoint's write, or "end".
SCRIPT = """
import gc, json, os, signal, sys, threading, traceback
from galip_keras import files
from galip_keras.training import loop
from galip_keras.models.architectures import ARCHITECTURES
from galip_keras.training import run as training

gc.freeze()
ARCHITECTURES["galip_tiny"] = json.loads(sys.argv[1])
settings = json.loads(sys.argv[2])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def run(folder, death):
    if death == "write":
        # The third file that is synced: weights are there, the renaming is to come.
        synced, sync = [], files._sync
        def sync_or_die(path):
            synced.append(path)
            return die() if len(synced) == 3 else sync(path)
        files._sync = sync_or_die
    elif death != "end":
        # Counted from the first step, which compiles.
        class Timer(loop.Progress):
            def on_train_batch_end(self, batch, logs=None):
                if self._bar.n == self._bar.initial:
                    timer = threading.Timer(float(death), die)
                    timer.daemon = True
                    timer.start()
                super().on_train_batch_end(batch, logs)
        loop.Progress = Timer
    training.train(run=folder, resume=True, **settings)

for folder, death in zip(sys.argv[3::2], sys.argv[4::2]):
    child = os.fork()
    if child == 0:
        try:
            run(folder, death)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    print(folder, death, code, flush=True)
    if code not in (0, -9):
        sys.exit(1)
"""


def run(settings, deaths):
    arguments = [json.dumps(tiny.ARCHITECTURE), json.dumps(settings)]
    result = child.run(SCRIPT, *arguments, *(x for death in deaths for x in death))
    return [int(line.split()[-1]) for line in result.stdout.splitlines()]


@slow_on_torch
def test_ten_kills_change_nothing(tmp_path):
    settings = {
        "dataset": f"folder:{draw_circles(tmp_path / 'circles')}",
        "data_dir": str(tmp_path / "prepared"),
        "preset": "galip_tiny",
        "batch_size": 2,
        "steps": STEPS,
        "save_every": 4,
        "sample_every": 30,
        "report_every": 5,
        "augmentation": ["color"],
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    chance = random.Random(0)
    moments = [round(chance.uniform(0, 1.5), 3) for _ in range(KILLS - 1)]
    moments.insert(chance.randrange(KILLS), "write")
    deaths = [(whole, "end"), *((killed, moment) for moment in moments)]
    codes = run(settings, [*deaths, (killed, "end")])
    assert codes[0] == codes[-1] == 0
    # It may have come to its end before its last death.
    assert codes[1:-1].count(-signal.SIGKILL) >= KILLS // 2
    expected = contents(whole)
    assert len(expected) > 400
    assert expected["state"]["step"] == STEPS
    assert_same(killed, whole)
    assert keras.backend.backend() in (killed / "config.json").read_text()
