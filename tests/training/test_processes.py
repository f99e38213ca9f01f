"""Two processes train together, are stopped, one dies, both start again.

Bit for bit, as if nothing had happened. The processes are forked from one that has only
imported what it takes.
"""

import json

import child
import pytest
import tiny
from drawn import draw_circles
from outcome import assert_same, metrics

pytestmark = pytest.mark.every_backend

# argv: the architecture, the command, then for each start the run folder, the number of
# processes, and the signal that the last one gets after the next checkpoint.
SCRIPT = """
import gc, json, os, pathlib, signal, socket, sys, time, traceback
import galip_keras.training.run, tensorflow_text
from galip_cli.main import main
from galip_keras.models.architectures import ARCHITECTURES

gc.freeze()
ARCHITECTURES["galip_tiny"] = json.loads(sys.argv[1])
command = json.loads(sys.argv[2])

def fork(args):
    child = os.fork()
    if child:
        return child
    try:
        main(args)
    except SystemExit as exit_:
        os._exit(exit_.code or 0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)

def checkpoints(folder):
    return {x.name for x in pathlib.Path(folder).glob("checkpoints/step_????????")}

def start(folder, count, number):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    args = [*command, f"--run={folder}"]
    if count > 1:
        args += [f"--coordinator=127.0.0.1:{port}", f"--num-processes={count}"]
    before = checkpoints(folder)
    children = [
        fork([*args, f"--process-id={index}"] if count > 1 else args)
        for index in range(count)
    ]
    if number:
        while checkpoints(folder) <= before:
            time.sleep(0.02)
        os.kill(children[-1], number)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    print("codes", *map(os.waitstatus_to_exitcode, statuses), flush=True)

for folder, count, number in zip(*(sys.argv[i::3] for i in (3, 4, 5))):
    start(folder, int(count), int(number))
"""


@pytest.mark.slow
@pytest.mark.backend("jax")
def test_two_processes_survive(tmp_path):
    settings = {
        "dataset": f"folder:{draw_circles(tmp_path / 'circles')}",
        "data-dir": tmp_path / "prepared",
        "preset": "galip_tiny",
        "batch-size": 4,
        "steps": 6,
        "save-every": 2,
        "report-every": 2,
        "sample-every": 6,
    }
    command = ["train", "--resume", *(f"--{k}={v}" for k, v in settings.items())]
    whole, torn, one = (tmp_path / name for name in ("whole", "torn", "one"))
    starts = [(one, 1, 0), (whole, 2, 0), (torn, 2, 15), (torn, 2, 9), (torn, 2, 0)]
    result = child.run(
        SCRIPT,
        json.dumps(tiny.ARCHITECTURE),
        json.dumps(command),
        *(x for start in starts for x in start),
    )
    codes = [x for x in result.stdout.splitlines() if x.startswith("codes")]
    expected = ["codes 0", "codes 0 0", "codes 143 143", "codes 1 -9", "codes 0 0"]
    assert codes == expected, result.stderr[-3000:]
    assert_same(torn, whole)
    # Only one of them writes.
    assert [line["step"] for line in metrics(torn)] == [2, 4, 6, 6]
    # Noise, images and mismatched captions are those of one process.
    for name, value in metrics(one)[0].items():
        assert metrics(whole)[0][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
