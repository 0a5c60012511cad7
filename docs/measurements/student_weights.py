"""Print a digest of the student's weights after a short run of each method.

    python docs/measurements/student_weights.py FOLDER [METHOD ...]

Two commits train alike where they print the same. The bits depend on the machine: run both on one. Without
methods, all of conf/method/ are trained on the digits, with two teachers of an epoch each.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

ALONE = ("ce", "dml", "dml_published")  # without teachers
METHODS = sorted(file.stem for file in Path(__file__).parents[2].glob("conf/method/*.yaml"))
TEACHERS = ("vgg8_quarter", "resnet8")
SHORT = (
    "experiment=digits", "student=resnet8_thin", "trainer=cpu", "trainer.max_epochs=2", "data.train_size=300",
    "data.val_size=100", "data.batch_size=50", "logger=[]", "doctor=false",
)  # fmt: skip
TAUGHT = (
    f"teacher=[{','.join(TEACHERS)}]",
    *(f"teacher.{name}.recipe_overrides=['trainer.max_epochs=1','logger=[]']" for name in TEACHERS),
)


def main() -> None:
    """Train, and print a line per method."""
    folder, *methods = sys.argv[1:]
    root = Path(folder).resolve()
    for method in methods or METHODS:
        words = [f"method={method}", *SHORT, *(() if method in ALONE else TAUGHT)]
        places = [f"paths.data={root}/data", f"paths.outputs={root}", f"hydra.run.dir={root}/{method}"]
        command = [sys.executable, "-m", "amtml_pl.train", *words, *places]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        weights = root / method / "student.safetensors"
        found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else ended.stderr
        sys.stdout.write(f"{method} {found}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
