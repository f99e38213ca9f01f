"""Images per second of `galip serve` with 16 clients, against the model alone.

    python benchmarks/serving.py [--model MODEL] [--clients 16] [--seconds 60] [--quick]

`share` is the rate of the service divided by the rate of the model alone at batch size
8, which is measured before and after. p50 and p99 are the seconds that a client waits.
"""

import argparse
import collections
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="default: the paper's model on a random CLIP")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--quick", action="store_true", help="a tiny model, 2 seconds")
    parser.add_argument("--own-rate", help=argparse.SUPPRESS)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--out", help="JSON file to write")
    args = parser.parse_args()
    if args.write:
        write(args)
        return
    if args.own_rate:
        print(own_rate(args))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = args.model
        if not model:
            model = os.path.join(folder, "model")
            _run(["--write", model] + ["--quick"] * args.quick)
        seconds = 2 if args.quick else args.seconds
        rates = [float(_run(["--own-rate", model]))]
        row = load(model, args.clients, seconds)
        rates.append(float(_run(["--own-rate", model])))
    own = sum(rates) / 2
    row = {**row, "own images/s": own, "share": row["images/s"] / own}
    common.report("serving", [row], args.out, model=args.model or "the paper's")
    if row["errors"]:
        raise SystemExit(f"{row['errors']} requests failed")


def _run(arguments):
    command = [sys.executable, __file__, *arguments]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return result.stdout.strip().splitlines()[-1] if result.stdout.strip() else ""


def write(args):
    from galip_keras.models.text_to_image import build

    name = "galip_tiny" if args.quick else "galip_vit_base_patch32"
    build(name, clip="random").save_to_preset(args.write)


def own_rate(args):
    """Measure the model's images per second at batch size 8."""
    from galip_keras.sampling.sampler import load_any

    model = load_any(args.own_rate)
    prompts, seeds = ["a red bird"] * 8, list(range(8))
    return 8 / common.seconds(lambda: model.generate(prompts, seed=seeds), 5)


def load(model, clients, seconds):
    """Measure the service with clients that request one image after the other."""
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "galip_cli.main", "serve", "--model", model]
    command += ["--port", str(port), "--batch-size", "8"]
    address = f"http://127.0.0.1:{port}"
    start = time.monotonic()
    with subprocess.Popen(command) as process:
        try:
            while not _answers(f"{address}/readyz"):
                if process.poll() is not None:
                    raise SystemExit("the service ended")
                time.sleep(0.2)
            ready = time.monotonic() - start
            memory = _memory(process.pid)
            waits, errors = [], collections.Counter()
            end = time.monotonic() + seconds

            def client(number):
                with httpx.Client(timeout=120) as session:
                    for seed in range(number << 32, 1 << 62):
                        if time.monotonic() >= end:
                            return
                        begin = time.monotonic()
                        query = {"prompt": "a red bird", "seed": seed}
                        response = session.get(f"{address}/image", params=query)
                        if response.status_code == 200:
                            waits.append(time.monotonic() - begin)
                        else:
                            errors[response.status_code] += 1

            threads = [
                threading.Thread(target=client, args=(i,)) for i in range(clients)
            ]
            begin = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            spent = time.monotonic() - begin
            grown = _memory(process.pid) - memory
        finally:
            process.terminate()
    waits.sort()
    return {
        "clients": clients,
        "seconds": spent,
        "images": len(waits),
        "errors": sum(errors.values()),
        "images/s": len(waits) / spent,
        "p50 s": waits[len(waits) // 2],
        "p99 s": waits[int(0.99 * (len(waits) - 1))],
        "ready s": ready,
        "grown MB": grown,
    }


def _answers(url):
    import httpx

    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def _memory(pid):
    """Resident memory of a process in MB, on Linux."""
    try:
        with open(f"/proc/{pid}/status") as file:
            (line,) = [line for line in file if line.startswith("VmRSS")]
    except OSError:
        return 0.0
    return int(line.split()[1]) / 1000


if __name__ == "__main__":
    main()
