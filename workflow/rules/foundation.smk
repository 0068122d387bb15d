"""The miniature's foundation models, trained again; they ship with the repository.

    snakemake --profile local miniature_foundation     trains and judges them, resumable, below results/foundation
    snakemake --profile local install_foundation       and copies them to resources/miniature

Loss curves, sample grids and reconstructions are outputs. Checkpoints lie in undeclared folders `work`. The parts
are in gen4det/miniature/foundation_parts.py.
"""


rule foundation:
    input:
        jobs.foundation.reads,
    output:
        result=directory("<foundation>/{part}/result"),
        record="<foundation>/{part}/result.record.json",
    log:
        "<logs>/foundation/{part}.log",
    benchmark:
        "<benchmarks>/foundation/{part}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("fit").threads
    resources:
        mem_mb=jobs.memory("fit"),
        runtime=jobs.runtime("fit"),
        gpu=jobs.needs("fit").gpu,
    params:
        job=jobs.foundation.job,
        folder="<foundation>",
        device=device,
        budget=budget,
    message:
        "Foundation models: {wildcards.part}"
    shell:
        "python -m gen4det.stages.foundation {wildcards.part} --settings {params.job:q}"
        " --folder {params.folder:q} --device {params.device} {params.budget} 2>&1 | tee_log {log:q}"


rule foundation_losses:
    input:
        "<foundation>/{part}/result",
    output:
        "<foundation>/{part}/losses.png",
    log:
        "<logs>/foundation/{part}_losses.log",
    benchmark:
        "<benchmarks>/foundation/{part}_losses.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plot").threads
    resources:
        mem_mb=jobs.memory("plot"),
        runtime=jobs.runtime("plot"),
    params:
        job=jobs.loss_curve,
    message:
        "Curve of the losses of {wildcards.part}"
    shell:
        "python -m gen4det.stages.loss_curve --settings {params.job:q} --losses {input:q}/losses.csv"
        " --output {output:q} 2>&1 | tee_log {log:q}"


rule miniature_foundation:
    input:
        expand("<foundation>/{part}/result", part=jobs.foundation.parts()),
        expand(
            "<foundation>/{part}/losses.png", part=jobs.foundation.parts(learns=True)
        ),


rule install_foundation:
    input:
        jobs.foundation.reads,
    output:
        touch("<foundation>/installed"),
    log:
        "<logs>/foundation/install.log",
    benchmark:
        "<benchmarks>/foundation/install.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("fit").threads
    resources:
        mem_mb=jobs.memory("fit"),
        runtime=jobs.runtime("fit"),
        gpu=jobs.needs("fit").gpu,
    params:
        job=jobs.foundation.job,
        folder="<foundation>",
        device=device,
    message:
        "Foundation models: install"
    shell:
        "python -m gen4det.stages.foundation install --settings {params.job:q}"
        " --folder {params.folder:q} --device {params.device} 2>&1 | tee_log {log:q}"
