"""Average precision of one detector on the validation images."""


rule evaluate:
    input:
        dataset=jobs.dataset,
        weights="<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/weights.safetensors",
    output:
        metrics="<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/metrics.json",
        record="<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/metrics.json.record.json",
    log:
        "<logs>/evaluate/{dataset}/{detector}/{arm}/seed{seed}.log",
    benchmark:
        "<benchmarks>/evaluate/{dataset}/{detector}/{arm}/seed{seed}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("evaluate").threads
    resources:
        mem_mb=jobs.memory("evaluate"),
        runtime=jobs.runtime("evaluate"),
        gpu=jobs.needs("evaluate").gpu,
    params:
        job=jobs.evaluate,
        device=device,
        loaders=loaders,
    message:
        "Evaluate {wildcards.detector} on {wildcards.dataset}, arm {wildcards.arm}, seed {wildcards.seed}"
    shell:
        "python -m gen4det.stages.evaluate --settings {params.job:q} --dataset {input.dataset:q}"
        " --weights {input.weights:q} --output {output.metrics:q} --device {params.device} --workers {params.loaders}"
        " 2>&1 | tee_log {log:q}"
