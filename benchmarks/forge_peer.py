"""forge-robotics 0.2.0 from PyPI, in an environment of its own: its pins are not ours."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".cache" / "forge-robotics-0.2.0"
PACKAGE = "forge-robotics[zarr,video,lerobot]==0.2.0"
_INSTALL_S = 900

# Times the conversion itself; what it wrote is counted, because it reports a failure and still ends well.
_PROGRAM = """
import json, shutil, sys, time
import forge
source, target, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3])
times, frames, errors = [], 0, []
for number in range(repeats):
    start = time.perf_counter()
    done = forge.convert(source, f"{target}-{number}", target_format="lerobot-v3")
    times.append(time.perf_counter() - start)
    frames, errors = done.total_frames, [str(error) for error in done.errors][:1]
    shutil.rmtree(f"{target}-{number}", ignore_errors=True)
print(json.dumps({"times": times, "frames": frames, "errors": errors}))
"""


def seconds(raw: Path, target: Path, *, repeats: int, limit_s: float) -> float | str:
    """Median seconds of its conversion of the zarr store below `raw`, `limit_s` where it was stopped after that long.

    A sentence where it could not be measured.
    """
    command: list[str] = []
    python = CACHE / "bin" / "python"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not (CACHE / "ready").is_file():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(CACHE)], check=True, capture_output=True)
            install = [str(python), "-m", "pip", "install", "--quiet", PACKAGE]
            subprocess.run(install, check=True, capture_output=True, timeout=_INSTALL_S)
            (CACHE / "ready").touch()
        store = next(raw.rglob("*.zarr"))
        command = [str(python), "-c", _PROGRAM, str(store), str(target), str(repeats)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=limit_s * repeats)
    except subprocess.TimeoutExpired as error:
        return limit_s if error.cmd == command else f"forge-robotics 0.2.0 did not install in {error.timeout:.0f} s"
    except (subprocess.SubprocessError, OSError) as error:
        return f"forge-robotics 0.2.0 did not install or run here ({type(error).__name__})"
    found = json.loads(done.stdout.splitlines()[-1])
    if not found["frames"]:
        return f"forge-robotics 0.2.0 converts nothing of it ({' '.join(found['errors'])[:100]})"
    return float(statistics.median(found["times"]))
