#!/bin/sh
# snakemake: swapping the values of two parameters does not run the job again.
#
# Expected: "params" is one of the default rerun triggers: a job whose parameters have changed is run again, as it is
#   when one value is changed to a new one.
# Happens: the values are compared as an unordered set, without their names. After height=512, width=768 has been
#   changed to height=768, width=512 there is "Nothing to be done", and the result of the old setting stays.
#   The same for a prompt and a negative prompt, the data sets of training and test, or learning rate and decay.
# Means: a result is not the one that the configuration says, without any sign, and the next one who looks into the
#   configuration believes it. Two parameters of a rule may not take each other's values: pass one dictionary
#   (params: size=lambda wildcards: {"height": ..., "width": ...}), whose text has the names in it.
#
# Installs snakemake 9.27.1 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq snakemake==9.27.1
cd "$work"
cat >Snakefile <<'SNAKEFILE'
rule loose:
    output: "loose.txt"
    params: height=config["height"], width=config["width"]
    shell: "echo height {params.height}, width {params.width} > {output}"

rule dictionary:
    output: "dictionary.txt"
    params: size={"height": config["height"], "width": config["width"]}
    shell: "echo height {params.size[height]}, width {params.size[width]} > {output}"
SNAKEFILE
run() {
    HOME="$work" "$work/venv/bin/snakemake" --quiet all --cores 1 --config "height=$1" "width=$2" -- \
        loose.txt dictionary.txt
    echo "  configured height $1, width $2: two values have '$(cat loose.txt)', one dictionary '$(cat dictionary.txt)'"
}
echo "snakemake $("$work/venv/bin/snakemake" --version)"
run 512 768
run 768 512
swapped="$(cat loose.txt); $(cat dictionary.txt)"
run 768 640
changed=$(cat loose.txt)
if [ "$swapped" = "height 512, width 768; height 768, width 512" ] && [ "$changed" = "height 768, width 640" ]; then
    echo "as described: a new value is noticed, two swapped values are not"
else
    echo "CHANGED: this is no longer what happens" >&2
    exit 1
fi
