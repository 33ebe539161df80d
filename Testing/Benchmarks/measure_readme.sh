#!/usr/bin/env bash
# Measures the speed figures of the README, one after the other, on a machine that does nothing else; about 20 minutes.
# Prints the processor and its instruction sets first: Testing/Benchmarks/measure_readme.sh 2>&1 | tee measured.txt
set -u
cd "$(dirname "$0")/../.."
python=.venv/bin/python
program="$python -m HSAMSegmentLib"
phantom_or_scan=${1:-../shared/data/chaos_t2/images/chaos_t2_05.nii.gz}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

part() { printf '\n### %s\n' "$*"; }

part machine
lscpu | grep -E '^(Model name|CPU\(s\)|L2|L3)'
lscpu | tr ' ' '\n' | grep -E '^(avx2|avx512f|avx512_bf16|amx_bf16)$' | sort -u | tr '\n' ' '
uptime

part 36 abdominal slices, default options and --no-tta, bfloat16 where the hardware has it, and float32
for options in "" "--no-tta" "--full-precision" "--full-precision --no-tta"; do
    for round in 1 2 3; do
        # shellcheck disable=SC2086 # the options are words
        $program segment "$phantom_or_scan" -o "$work/organs.seg.nrrd" --model abdomen-mr --report "$work/report.json" \
            --overwrite $options >"$work/out" 2>&1 || tail -n 3 "$work/out"
        $python -c "import json; t = json.load(open('$work/report.json'))['timings_s']; print('$options', {k: round(v, 2) for k, v in t.items()})"
    done
done

part a whole-body CT, abdomen-ct
for round in 1 2; do
    /usr/bin/env time -f '%e s in all' $program segment Testing/Data/ct_totalsegmentator/images/ct_example_full.nii.gz \
        -o "$work/ct.seg.nrrd" --model abdomen-ct --report "$work/report.json" --overwrite 2>&1 | tail -n 1
    $python -c "import json; r = json.load(open('$work/report.json')); print({k: round(v, 2) for k, v in r['timings_s'].items()})"
done

part hsam-segment --help
for round in 1 2 3; do /usr/bin/env time -f '%e s' $program --help 2>&1 >/dev/null | tail -n 1; done

for command in \
    "bench_busy.py" \
    "bench_network.py" \
    "bench_encoder.py --sizes 512 1024 --samples 3" \
    "bench_cohort.py" \
    "open_module.py" \
    "write_segments.py" \
    "job_against_command.py" \
    "gui_lateness.py" \
    "finetune_lateness.py 0.3" \
    "bench_memory.py --organs" \
    "bench_memory.py"; do
    part "$command"
    # shellcheck disable=SC2086 # the command and its options are words
    $python Testing/Benchmarks/$command 2>&1 | grep -v Warning
done
