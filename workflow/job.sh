# Read before the command of every rule (rules/common.smk). RECU_PYTHON and RECU_CHECKOUT say what runs.
set -euo pipefail

# recu WORD...: the program, from the checkout.
recu() {
  PYTHONPATH="$RECU_CHECKOUT" "$RECU_PYTHON" -m recu "$@"
}

# job ATTEMPT LOG WORD...: `recu WORD...`, whose output goes to LOG, with what its end means for another attempt:
# a mistake in the input (2) or a training that diverged (3) would end the same way again, so the attempts that Snakemake
# may still make only repeat the answer; a job that was interrupted (75) or killed continues at once, unless whoever
# stopped it stopped this shell too, as Ctrl-C and a time limit do.
job() {
  local attempt=$1 log=$2 answer=$2.answer stopped="" left=2 code
  shift 2
  if ((attempt > 1)) && [[ -s $answer ]]; then
    echo "not tried again, since it would end the same way:"
    sed 1d "$answer"
    return "$(sed -n 1p "$answer")"
  fi
  rm -f "$answer"
  trap 'stopped=yes' INT TERM USR1
  while true; do
    code=0
    recu "$@" || code=$?
    case $code in
      0) return 0 ;;
      2 | 3)
        { echo "$code" && tail -n 1 "$log"; } >"$answer"
        return "$code"
        ;;
      75 | 13[4-9]) ;;
      *) return "$code" ;;
    esac
    if [[ -n $stopped ]] || ((left == 0)); then
      return "$code"
    fi
    left=$((left - 1))
    echo "interrupted (exit code $code): continuing"
  done
}
