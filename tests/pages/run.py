"""Open report pages in headless Chromium: no word in its console, and pictures to look at.

The pages are those of a classification, of its quantized network and of a regression, in light and dark colours, on a
narrow and on a wide screen. The browser reaches no network. Pictures are written into the folder that is named.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from nbdense.commands import cli  # noqa: E402
from tests.commands.csv_files import write_members, write_prices  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COLOURS = {"dark": 0, "light": 1}  # of Blink's setting preferredColorScheme
WIDTHS = {"narrow": 400, "wide": 1280}
HEIGHT = 3600
NEEDED = "needs Chromium: sudo apt-get install chromium"


def main() -> int:
    """Write the pages, open each, and say what the browser said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("page-pictures"), help="folder for the pictures")
    out = parser.parse_args().out.absolute()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"check-page {NEEDED}", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    complaints = []
    with tempfile.TemporaryDirectory(prefix="nbdense-pages-") as folder:
        for name, page in write_pages(Path(folder)).items():
            for colour in COLOURS:
                for width in WIDTHS:
                    picture = out / f"{name}-{colour}-{width}.png"
                    complaints += look(browser, page, picture, colour, width, Path(folder))
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    print(f"{len(list(out.glob('*.png')))} pictures in {out}; {len(complaints)} complaints")
    return 1 if complaints else 0


def write_pages(folder: Path) -> dict[str, Path]:
    """Return the pages of models that are trained here."""
    members, prices = write_members(folder / "members.csv"), write_prices(folder / "prices.csv")
    for arguments in (
        ["train", members, "--target", "leaves", "--out", folder / "classes", "--class-weight", "balanced"],
        ["train", prices, "--target", "price", "--out", folder / "values", "--rate", "0.01"],
        ["quantize", folder / "classes", "--data", members, "--out", folder / "integers"],
    ):
        code = cli.main([str(argument) for argument in arguments])
        if code:
            sys.exit(code)
    return {name: folder / name / "report.html" for name in ("classes", "values", "integers")}


def look(browser: str, page: Path, picture: Path, colour: str, width: str, folder: Path) -> list[str]:
    """Open a page, take a picture of it, and return what is wrong."""
    command = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={COLOURS[colour]}",
        f"--window-size={WIDTHS[width]},{HEIGHT}",
        f"--screenshot={picture}",
        page.as_uri(),
    ]
    picture.unlink(missing_ok=True)
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = [line for line in process.stderr.splitlines() if re.search(r"CONSOLE[:(]", line)]
    if process.returncode or not picture.is_file():
        said.append(f"the browser ended with {process.returncode}: {process.stderr[-400:]}")
    return [f"{picture.name}: {line}" for line in said]


if __name__ == "__main__":
    sys.exit(main())
