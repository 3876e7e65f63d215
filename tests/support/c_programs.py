"""C sources of many models in one program: compiled once, run once."""

import subprocess
from pathlib import Path

import numpy as np

from nbdense.export.c.api import texts_of

STRICT = ["-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]


def write_sources(folder, models, **options):
    """Write ``m0.c``, ``m1.c``, ... and their headers; returns the paths of the sources."""
    sources = []
    for number, model in enumerate(models):
        texts = texts_of(model, f"m{number}", f"m{number}.h", **{"target": "generic", **options})
        (folder / f"m{number}.h").write_text(texts.header)
        (folder / f"m{number}.c").write_text(texts.source)
        sources.append(folder / f"m{number}.c")
    return sources


def run_all(folder, sources, inputs, sizes, command, value="int8_t", call="predict"):
    """Predict each model's rows, (rows, n_in); returns each one's outputs, (rows, its size)."""
    main = ["#include <stdio.h>", *(f'#include "{source.stem}.h"' for source in sources)]
    main += [
        "int main(int count, char **names)",
        "{",
        '    FILE *in = fopen(names[1], "rb"), *out = fopen(names[2], "wb");',
    ]
    for source, rows, n_out in zip(sources, inputs, sizes, strict=True):
        main += [
            f"    for (int row = 0; row < {len(rows)}; ++row) {{",
            f"        static {value} x[{rows[0].size}], y[{n_out}];",
            "        if (fread(x, sizeof x, 1, in) != 1) return 2;",
            f"        if ({source.stem}_{call}(x, y) != 0) return 3;",
            "        fwrite(y, sizeof y, 1, out);",
            "    }",
        ]
    main += ["    (void)count;", "    return fclose(in) == 0 && fclose(out) == 0 ? 0 : 4;", "}"]
    (folder / "main.c").write_text("\n".join(main) + "\n")
    program, given, made = folder / "program", folder / "in", folder / "out"
    done = subprocess.run(
        [*command, "-std=c99", str(folder / "main.c"), *map(str, sources), "-o", str(program), "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    given.write_bytes(b"".join(np.ascontiguousarray(rows).tobytes() for rows in inputs))
    ran = subprocess.run([str(program), str(given), str(made)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-5000:]
    flat = np.frombuffer(Path(made).read_bytes(), value.removesuffix("_t") if value != "float" else np.float32)
    ends = np.cumsum([len(rows) * n_out for rows, n_out in zip(inputs, sizes, strict=True)])
    assert flat.size == ends[-1]
    pieces = np.split(flat, ends[:-1])
    return [piece.reshape(len(rows), -1) for piece, rows in zip(pieces, inputs, strict=True)]
