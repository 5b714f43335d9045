# Read before the command of every rule (rules/common.smk). RECU_PYTHON and RECU_CHECKOUT say what runs, RECU_REMOTE whether
# a scheduler runs it as a job of its own.
set -euo pipefail

# recu WORD...: the program, from the checkout; where one process holds everything imported, by a fork of that.
recu() {
  local program=(-m recu)
  [[ -z ${RECU_PRELOADED-} ]] || program=(-I -S "$RECU_CHECKOUT/recu/base/preloaded.py")
  PYTHONPATH="$RECU_CHECKOUT" "$RECU_PYTHON" "${program[@]}" "$@"
}

# job_end MINUTES: Unix time at which a scheduler ends this job: what Slurm says, else so many minutes from now; 0: never.
job_end() {
  local end=${SLURM_JOB_END_TIME-}
  if [[ -z $end && -n ${SLURM_JOB_ID-} ]]; then
    end=$(SLURM_TIME_FORMAT=%s squeue --noheader --jobs "$SLURM_JOB_ID" --format %e 2>/dev/null) || end=""
  fi
  if [[ $end =~ ^[0-9]+$ ]]; then
    echo "$end"
  elif [[ $1 =~ ^[0-9]+$ && $1 != 0 ]]; then
    echo $((EPOCHSECONDS + 60 * $1))
  else
    echo 0
  fi
}

# back_to_queue: a Slurm job that is to go on later waits in the queue again under its own id, which costs none of Snakemake's
# attempts. Not one that somebody cancelled; one that preemption cancels is, as one that it requeues is by itself.
back_to_queue() {
  [[ -n ${RECU_REMOTE-} && -n ${SLURM_JOB_ID-} ]] || return 0
  local shown
  shown=$(scontrol --oneliner show job "$SLURM_JOB_ID" 2>/dev/null) || return 0
  if [[ $shown == *" JobState=RUNNING "* || $shown == *" PreemptTime="[0-9]* ]] && scontrol requeue "$SLURM_JOB_ID"; then
    echo "Slurm job $SLURM_JOB_ID waits in the queue to continue"
    sleep 60 # until Slurm ends what is left of it
  fi
}

# job ATTEMPT LOG WORD...: `recu WORD...`, whose output goes to LOG, with what its end means for another attempt:
# a mistake in the input (2) or a training that diverged (3) would end the same way again, so the attempts that Snakemake
# may still make only repeat the answer; a job that was interrupted (75) or killed continues at once, unless whoever
# stopped it stopped this shell too, as Ctrl-C does. Where `end_time` limits it, its place goes to others first.
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
      75)
        if ((${end_time:-0})); then
          back_to_queue
          return 75
        fi
        ;;
      13[4-9]) ;;
      *) return "$code" ;;
    esac
    if [[ -n $stopped ]] || ((left == 0)); then
      return "$code"
    fi
    left=$((left - 1))
    echo "interrupted (exit code $code): continuing"
  done
}
