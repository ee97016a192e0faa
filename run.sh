#!/usr/bin/env bash
# Sets up env/ beside this file, then runs a command in it.
#
#   bash run.sh            checks the code with ruff, import-linter and mypy,
#                          builds the documentation, runs the tests, and those
#                          of rigl.keras once more on JAX
#   bash run.sh CMD ARG... runs CMD, in the current folder
#
# The first run takes the newest of Python 3.10 to 3.13 that it finds and a few
# minutes; later ones start at once. PYTHON=/path/to/python chooses another.
# Where there is none it ends with 3.
#
# ESTIMATOR=1 bash run.sh does the same in env-estimator/ with TensorFlow 2.15,
# the last with TPUEstimator, which needs Python 3.10 or 3.11. Without CMD it
# runs only the tests that depend on the version of TensorFlow.
set -euo pipefail

if [ -n "${ESTIMATOR:-}" ]; then
  name=env-estimator extras=estimator,test versions=(3.11 3.10)
else
  name=env extras=docs,inference,jax,test versions=(3.13 3.12 3.11 3.10)
fi
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
env=$root/$name
stamp=$env/.set-up
log=$env/set-up.log

say() { printf 'run.sh: %s\n' "$*" >&2; }
die() {
  say "$@"
  exit 1
}

# Prints the version of the interpreter $1 and the one that it is a virtual
# environment of, or fails if it is unsuitable.
probe() {
  "$1" -c '
import ensurepip, sys, venv

if "%d.%d" % sys.version_info[:2] not in sys.argv[1:]:
  sys.exit(1)
print("%d.%d.%d" % sys.version_info[:3], sys._base_executable)
' "${versions[@]}" 2>/dev/null </dev/null
}

has() { command -v "$1" >/dev/null; }

# Prints the interpreters there are, the newest version first.
candidates() {
  local version pyenv=${PYENV_ROOT:-${HOME:-}/.pyenv}/versions
  for version in "${versions[@]}"; do
    type -aP "python$version" || true
    ls "$pyenv/$version".*/bin/"python$version" || true
    ! has uv || uv python find "$version" || true
  done 2>/dev/null
}

# Prints commands that install an interpreter on this system.
remedies() {
  local version newest=${versions[0]}
  ! has uv || echo "  uv python install $newest"
  ! has pyenv || echo "  pyenv install $newest"
  ! has conda ||
    echo "  conda create -n rigl python=$newest && conda activate rigl"
  ! has apt-cache || for version in "${versions[@]}"; do
    if apt-cache show "python$version-venv" >/dev/null 2>&1; then
      echo "  apt-get install python$version-venv"
    fi
  done
}

# Prints what `probe` does of the interpreter to use, or ends with 3.
find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    if probe "$PYTHON"; then return; fi
    say "PYTHON=$PYTHON is none of Python ${versions[*]} with venv."
    exit 3
  fi
  while read -r candidate; do
    if probe "$candidate"; then return; fi
  done < <(candidates)
  say "found none of Python ${versions[*]} with venv. To install one:"
  remedies >&2
  say "To use one that is elsewhere: PYTHON=/path/to/python bash run.sh"
  exit 3
}

# Where the environment stands (it cannot be moved) and its version of Python.
identity() { printf '%s %s\n' "$root" "$1"; }

# What decides which packages it holds.
requirements() { cat "$root/pyproject.toml" "$root/setup.py" | cksum; }

# Whether it works and has the Python asked for, packages aside.
is_usable() {
  local found asked
  found=$(probe "$env/bin/python") &&
    asked=$(probe "${PYTHON:-$env/bin/python}") &&
    [ "${found%% *}" = "${asked%% *}" ] &&
    [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$(identity "${found%% *}")" ]
}

is_ready() {
  is_usable && [ "$(tail -n 1 "$stamp")" = "$(requirements)" ]
}

# Whether the folder holds something that no set-up, finished or not, left there.
is_foreign() {
  [ -e "$env" ] && [ ! -f "$env/pyvenv.cfg" ] && ls -A "$env" |
    grep -vxE 'bin|include|lib|lib64|share|set-up\.log|\.set-up\..*' >/dev/null
}

install() {
  "$env/bin/python" -m pip install "$@" >>"$log" 2>&1 </dev/null || {
    grep -v '^WARNING' "$log" | tail -n 20 >&2
    die "'pip install $*' failed; the whole output is in $log."
  }
}

set_up() {
  # One set-up at a time. The system frees the lock of a process that dies.
  [ -w "$root" ] || die "$root is not writable."
  exec 9>"$root/.env-lock"
  flock --nonblock 9 || {
    say "waiting for another set-up."
    flock 9
  }
  # Which may have been the same one.
  if is_ready; then return; fi

  local found
  if is_usable; then
    say "pyproject.toml or setup.py has changed: updating $name/."
    rm -f "$stamp"
  else
    if is_foreign; then
      die "$env is not a virtual environment: move it away or delete it."
    fi
    found=$(find_python)
    say "setting up $name/ with Python ${found%% *}" \
      "(once; a few minutes and 3 GB)."
    "${found#* }" -m venv --clear "$env" ||
      die "could not make $name/ with ${found#* }; its message is above."
    # The pip that comes with Python 3.10 is slow at choosing versions.
    install --upgrade pip
  fi
  cd -- "$root"
  install --editable ".[$extras]"
  found=$(probe "$env/bin/python")
  { identity "${found%% *}" && requirements; } >"$stamp.part"
  mv "$stamp.part" "$stamp"
}

# In a subshell: it changes folder and holds the lock only while it runs.
is_ready || (set_up)

export VIRTUAL_ENV=$env PATH="$env/bin:$PATH"
unset PYTHONHOME
if [ $# -gt 0 ]; then
  exec "$@"
fi
cd -- "$root"
# By file: tests of one file share what they have set up. In the order of their
# names: sorted by size, files of few but long tests would come last.
pytest=(python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile
        --no-loadscope-reorder)
if [ -n "${ESTIMATOR:-}" ]; then
  # TPUEstimator, the graphs of masks and optimizers, training and its faults.
  exec "${pytest[@]}" tests/faults tests/training \
    tests/*/*_{call,checkpoints,mistakes,outputs,resume,train_eval}_test.py \
    tests/*{checkpoints*,compat,eager,loops,optimizers*,replicas,subgraphs,train_ops,utils}_test.py
fi
ruff check .
ruff format --check .
lint-imports
mypy
mkdocs build --strict --site-dir "$env/site"
KERAS_BACKEND=tensorflow "${pytest[@]}"
KERAS_BACKEND=jax exec "${pytest[@]}" tests/keras
