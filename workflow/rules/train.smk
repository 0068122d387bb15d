"""One detector per arm and seed, trained on the real images and the arm's synthetic sets.

Checkpoints lie in an undeclared folder `work` beside the weights, so that a killed training goes on where it
stopped: Snakemake deletes what a rule declares before every attempt.
"""


rule train:
    input:
        dataset=jobs.dataset,
        synthetic=jobs.synthetic_sets,
        drawn=jobs.synthetic_files,
        pretrained=jobs.backbone,
    output:
        weights="<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/weights.safetensors",
        losses="<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/losses.csv",
        record="<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/weights.safetensors.record.json",
    log:
        "<logs>/train/{dataset}/{detector}/{arm}/seed{seed}.log",
    benchmark:
        "<benchmarks>/train/{dataset}/{detector}/{arm}/seed{seed}.tsv"
    # The longest jobs: what one finished training lets begin can wait beside the next, not the other way round.
    priority: 1
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("train").threads
    resources:
        mem_mb=jobs.memory("train"),
        runtime=jobs.runtime("train"),
        gpu=jobs.needs("train").gpu,
    params:
        job=jobs.train,
        launcher=launcher,
        device=device,
        loaders=loaders,
        budget=budget,
    message:
        "Train {wildcards.detector} on {wildcards.dataset}, arm {wildcards.arm}, seed {wildcards.seed}"
    shell:
        "{params.launcher} gen4det.stages.train --settings {params.job:q} --dataset {input.dataset:q}"
        " --synthetic {input.synthetic:q} --output {output.weights:q} --device {params.device} --workers {params.loaders} {params.budget}"
        " 2>&1 | tee_log {log:q}"
