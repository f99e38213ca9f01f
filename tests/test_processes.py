"""Two processes train together, one of them is stopped or dies, both start again."""

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from drawn import draw_pictures
from test_resume import contents, metrics

STEPS = 40
SECONDS = 400

pytestmark = pytest.mark.backend("jax")


class Machines:
    """Starts `galip train` as two machines would that share their files."""

    def __init__(self, folder, *args):
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}.log")
        command = "import sys; from galip_cli.main import main; main(sys.argv[1:])"
        self.command = [sys.executable, "-c", command, "train", "--run", str(folder)]
        self.command += ["--resume", *args]

    def start(self):
        coordinator = f"127.0.0.1:{_free_port()}"
        self.processes = []
        for index in ("0", "1"):
            place = ["--coordinator", coordinator, "--process-id", index]
            env = {**os.environ, "GALIP_NUM_PROCESSES": "2"}
            with open(self.log, "a") as log:
                self.processes.append(
                    subprocess.Popen(
                        [*self.command, *place], stdout=log, stderr=log, env=env
                    )
                )

    def send(self, number):
        """Sends a signal to the second one after the next checkpoint."""
        before = self._checkpoints()
        deadline = time.monotonic() + SECONDS
        while self._checkpoints() <= before:
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in self.processes)
            time.sleep(0.02)
        self.processes[1].send_signal(number)

    def _checkpoints(self):
        names = {x.name for x in self.folder.glob("checkpoints/step_????????")}
        return max(names, default="")

    def wait(self):
        return [process.wait(timeout=SECONDS) for process in self.processes]


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def machines(tmp_path):
    """Makes pairs of machines. None of them outlives the test."""
    made = []
    data = f"folder:{draw_pictures(tmp_path / 'circles')}"
    settings = {
        "--dataset": data,
        "--data-dir": tmp_path / "prepared",
        "--preset": "galip_tiny",
        "--batch-size": 4,
        "--steps": STEPS,
        "--save-every": 5,
        "--report-every": 10,
        "--sample-every": 20,
    }
    args = [str(x) for setting in settings.items() for x in setting]

    def make(name):
        made.append(Machines(tmp_path / name, *args))
        return made[-1]

    yield make
    for pair in made:
        for process in pair.processes:
            process.kill()


def test_two_processes_survive(machines):
    whole = machines("whole")
    whole.start()
    assert whole.wait() == [0, 0]

    torn = machines("torn")
    torn.start()
    torn.send(signal.SIGTERM)
    assert torn.wait() == [128 + signal.SIGTERM] * 2
    torn.start()
    torn.send(signal.SIGKILL)
    first, second = torn.wait()
    assert second == -signal.SIGKILL
    assert first not in (0, 128 + signal.SIGTERM)
    torn.start()
    assert torn.wait() == [0, 0]
    # Only one of them writes.
    assert [line["step"] for line in metrics(torn.folder)] == [10, 20, 20, 30, 40, 40]
    assert metrics(torn.folder) == metrics(whole.folder)
    expected, actual = contents(whole.folder), contents(torn.folder)
    assert actual.pop("state") == expected.pop("state")
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, name)
