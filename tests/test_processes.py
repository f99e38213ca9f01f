"""Two processes train together, are stopped, one dies, both start again.

Bit for bit, as if nothing had happened. The processes are forked from one that has only
imported what it takes.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from drawn import draw_pictures
from test_resume import contents, metrics

SMALL = {
    "clip": "random",
    "random_clip": {
        "image_size": 32,
        "patch_size": 16,
        "hidden_dim": 16,
        "num_layers": 2,
        "num_heads": 2,
        "embedding_dim": 12,
        "text_hidden_dim": 16,
        "text_num_layers": 1,
        "text_num_heads": 2,
    },
    "feature_layers": (0, 1),
    "generator": {"base_channels": 8, "bridge_channels": 8, "prompt_layers": (1,)},
}

# argv: the architecture, the command, then for each start of both processes the run
# folder and the signal that the second one gets after the next checkpoint.
SCRIPT = """
import json, os, pathlib, signal, socket, sys, time, traceback
from galip_cli.main import main
from galip_keras import training

training.ARCHITECTURES["galip_tiny"] = json.loads(sys.argv[1])
command = json.loads(sys.argv[2])

def fork(index, port, args):
    child = os.fork()
    if child:
        return child
    try:
        main([*args, "--coordinator", f"127.0.0.1:{port}", "--process-id", str(index)])
    except SystemExit as exit_:
        os._exit(exit_.code or 0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)

def checkpoints(folder):
    return {x.name for x in pathlib.Path(folder).glob("checkpoints/step_????????")}

def start(folder, number):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    before = checkpoints(folder)
    both = [fork(index, port, [*command, "--run", folder]) for index in range(2)]
    if number:
        while checkpoints(folder) <= before:
            time.sleep(0.02)
        os.kill(both[1], number)
    statuses = [os.waitpid(child, 0)[1] for child in both]
    print("codes", *map(os.waitstatus_to_exitcode, statuses), flush=True)

for folder, number in zip(sys.argv[3::2], sys.argv[4::2]):
    start(folder, int(number))
"""


@pytest.mark.backend("jax")
def test_two_processes_survive(tmp_path):
    settings = {
        "dataset": f"folder:{draw_pictures(tmp_path / 'circles')}",
        "data-dir": tmp_path / "prepared",
        "preset": "galip_tiny",
        "batch-size": 4,
        "steps": 12,
        "save-every": 2,
        "report-every": 3,
        "sample-every": 6,
    }
    command = ["train", "--resume", *(f"--{k}={v}" for k, v in settings.items())]
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    starts = [(whole, 0), (torn, 15), (torn, 9), (torn, 0)]
    arguments = [json.dumps(SMALL), json.dumps(command)]
    arguments += [str(x) for start in starts for x in start]
    root = pathlib.Path(__file__).parents[1]
    env = {
        **os.environ,
        "PYTHONPATH": str(root),
        "GALIP_NUM_PROCESSES": "2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    log = tmp_path / "log"
    with open(log, "w") as file:
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments],
            env=env,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    codes = [x for x in result.stdout.splitlines() if x.startswith("codes")]
    assert codes == ["codes 0 0", "codes 143 143", "codes 1 -9", "codes 0 0"], (
        log.read_text()[-3000:]
    )
    expected, actual = contents(whole), contents(torn)
    assert actual.pop("state") == expected.pop("state")
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, name)
    # Only one of them writes.
    assert [line["step"] for line in metrics(torn)] == [3, 6, 6, 9, 12, 12]
    assert metrics(torn) == metrics(whole)
