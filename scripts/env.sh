# Sourced by every script of this folder: where things are, and how parts are timed.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Where cargo builds, and where the scripts leave pages, pictures and logs.
target=${CARGO_TARGET_DIR:-target}

# Data sets too large for the repository. Tests and examples that want them skip, saying so, where the folder is absent.
if [[ -z ${WENGERT_DATA:-} && -d ../shared/data ]]; then
  WENGERT_DATA=$(cd ../shared/data && pwd)
  export WENGERT_DATA
fi

# Where it is unset, as in most containers, Mesa complains about it on every start.
if [[ -z ${XDG_RUNTIME_DIR:-} ]]; then
  mkdir -p "$target"
  mkdir -p -m 700 "$target/runtime"
  XDG_RUNTIME_DIR=$(cd "$target/runtime" && pwd)
  export XDG_RUNTIME_DIR
fi

# The examples that are also web pages, run in headless Chromium. The first is the smallest proof of the chain.
pages=(adapter guide_custom_step)

say() { printf '\n== %s\n' "$*"; }

parts=()

# part NAME BUDGET COMMAND...: runs the command, notes its seconds against the budget, and stops the script if it fails.
part() {
  local name=$1 budget=$2 start=$SECONDS status line
  shift 2
  say "$name: $*"
  # Not `"$@" || status=$?`: inside a function called so, bash ignores `set -e`, and a failing step would pass unseen.
  set +e
  (set -e; "$@")
  status=$?
  set -e
  line="part: $name $((SECONDS - start)) s (budget $budget s)"
  ((SECONDS - start <= budget)) || line+="  WARNING: over its budget"
  ((status == 0)) || line+="  FAILED"
  parts+=("$line")
  printf '\n%s\n' "$line"
  ((status == 0)) || { summary; exit "$status"; }
}

summary() { printf '\n'; printf '%s\n' "${parts[@]}" "total: $SECONDS s"; }

# on_swiftshader COMMAND...: on the driver that Chromium brings along. Its numbers and bugs are not lavapipe's, and its compiler
# takes half the time.
on_swiftshader() {
  local icd found=
  for icd in /usr/lib/chromium/vk_swiftshader_icd.json /usr/lib/chromium-browser/vk_swiftshader_icd.json \
    /usr/lib64/chromium-browser/vk_swiftshader_icd.json /opt/google/chrome/vk_swiftshader_icd.json; do
    if [[ -f $icd ]]; then found=$icd; break; fi
  done
  if [[ -z $found ]]; then echo "no vk_swiftshader_icd.json beside Chromium" >&2; return 1; fi
  # The second name is what older loaders read.
  VK_DRIVER_FILES=$found VK_ICD_FILENAMES=$found "$@"
}
