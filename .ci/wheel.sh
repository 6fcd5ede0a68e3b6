#!/usr/bin/env bash
# The package as others get it: a source distribution and a wheel with their data files and nothing odd, and the wheel
# alone, in an environment of its own and another folder, runs the quickstart and an export of it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# From a copy: setuptools leaves build/ and egg-info beside what it builds, and takes up what lies there.
mkdir "$work/source"
git archive HEAD | tar -x -C "$work/source"
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check build
"$work/venv/bin/python" -m build --outdir "$work/dist" "$work/source" >"$work/build.log" || { cat "$work/build.log"; exit 1; }

# Every file of the package that git knows is in both, and no other.
git ls-files castream_jax | sort >"$work/expected"
"$python" -m zipfile --list "$work"/dist/*.whl | awk 'NR > 1 {print $1}' | grep '^castream_jax/' | sort >"$work/in-wheel"
diff "$work/expected" "$work/in-wheel"
tar -tzf "$work"/dist/*.tar.gz | sed 's,^[^/]*/,,' | grep -E '^[^/]+/' | grep -vE '/$|egg-info/' | sort >"$work/in-sdist"
diff "$work/expected" "$work/in-sdist"

rm -rf "$work/venv" "$work/source"
"$python" -m venv "$work/venv"
begin=$SECONDS
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$work"/dist/*.whl
echo "wheel installed in $((SECONDS - begin)) s"
cd "$work"
begin=$SECONDS
env -u PYTHONPATH "$work/venv/bin/castream" quickstart --workdir "$work/quickstart"
echo "quickstart in $((SECONDS - begin)) s"
env -u PYTHONPATH "$work/venv/bin/castream" export --workdir "$work/quickstart" --to stablehlo --out "$work/export"
ls "$work/export"
