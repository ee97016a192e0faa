#!/usr/bin/env bash
# Sets up env/ beside this file, then runs a command in it.
#
#   bash run.sh            checks the code with ruff and mypy, runs the tests
#   bash run.sh CMD ARG... runs CMD, in the current folder
#
# The first run needs Python 3.9, 3.10 or 3.11 and takes a few minutes; later
# ones start at once. PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
env=$root/env
stamp=$env/.set-up
lock=$root/.env-lock

say() { printf 'run.sh: %s\n' "$*" >&2; }
die() {
  say "$@"
  exit 1
}

# Prints the version of the interpreter $1, or fails if it is unsuitable.
suitable_version() {
  "$1" -c '
import ensurepip, sys, venv

if not (3, 9) <= sys.version_info[:2] < (3, 12):
  sys.exit(1)
print(".".join(map(str, sys.version_info[:3])))' 2>/dev/null </dev/null
}

# The interpreter behind $1, which may itself be that of env/, about to go.
base_of() { "$1" -c 'import sys; print(sys._base_executable)'; }

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    suitable_version "$PYTHON" >/dev/null ||
      die "PYTHON=$PYTHON is not a Python 3.9, 3.10 or 3.11 with venv."
    base_of "$PYTHON"
    return
  fi
  for candidate in python3.11 python3.10 python3.9 python3 python \
    "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.{11,10,9}.*/bin/python; do
    if suitable_version "$candidate" >/dev/null; then
      base_of "$candidate"
      return
    fi
  done
  die "no Python 3.9, 3.10 or 3.11 with venv was found; TensorFlow 2.15 has" \
    "no build for any other. Install one, for example with" \
    "'apt-get install python3.11 python3.11-venv' or 'pyenv install 3.11'," \
    "or name one that is not on the PATH:" \
    "PYTHON=/path/to/python3.11 bash run.sh"
}

# Where the environment stands (it cannot be moved) and its interpreter.
identity() { printf '%s %s\n' "$root" "$1"; }

# What decides which packages it holds.
requirements() { cat "$root/pyproject.toml" "$root/setup.py" | cksum; }

# Whether env/ works and fits the interpreter asked for, packages aside.
is_usable() {
  local version
  [ -f "$stamp" ] &&
    version=$(suitable_version "$env/bin/python") &&
    { [ -z "${PYTHON:-}" ] ||
      [ "$(suitable_version "$PYTHON")" = "$version" ]; } &&
    [ "$(head -n 1 "$stamp")" = "$(identity "$version")" ]
}

is_ready() {
  is_usable && [ "$(tail -n 1 "$stamp")" = "$(requirements)" ]
}

# Whether env/ holds something that no set-up, finished or not, left there.
is_foreign() {
  [ -e "$env" ] && [ ! -f "$env/pyvenv.cfg" ] && ls -A "$env" |
    grep -vxE 'bin|include|lib|lib64|share|set-up\.log|\.set-up\..*' >/dev/null
}

set_up() {
  # One set-up at a time. The system frees the lock of a process that dies.
  [ -w "$root" ] || die "$root is not writable."
  exec 9>"$lock"
  flock --nonblock 9 || {
    say "waiting for another set-up."
    flock 9
  }
  # Which may have been the same one.
  if is_ready; then return; fi

  local python=$env/bin/python log=$env/set-up.log version
  if is_usable; then
    say "pyproject.toml or setup.py has changed: updating env/."
    rm -f "$stamp"
    : >"$log"
  else
    if is_foreign; then
      die "$env is not a virtual environment: move it away or delete it."
    fi
    local base
    base=$(find_python)
    say "setting up env/ with Python $(suitable_version "$base")" \
      "(once; a few minutes and 2.2 GB)."
    "$base" -m venv --clear "$env" ||
      die "could not make env/ with $base; its message is above."
    # The pip that comes with Python 3.9 is slow at choosing versions.
    run_logged "$log" "$python" -m pip install --upgrade "pip>=24,<27"
  fi
  cd -- "$root"
  run_logged "$log" "$python" -m pip install --editable ".[test]"

  version=$(suitable_version "$python")
  { identity "$version" && requirements; } >"$stamp.part"
  mv "$stamp.part" "$stamp"
}

run_logged() {
  local log=$1
  shift
  "$@" >>"$log" 2>&1 </dev/null || {
    grep -v '^WARNING' "$log" | tail -n 20 >&2
    die "'$*' failed; the whole output is in $log."
  }
}

# In a subshell: it changes folder and holds the lock only while it runs.
is_ready || (set_up)

export VIRTUAL_ENV=$env PATH="$env/bin:$PATH"
unset PYTHONHOME
if [ $# -gt 0 ]; then
  exec "$@"
fi
cd -- "$root"
ruff check .
mypy
# By file: tests of one file share what they have set up.
exec python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile
