"""How good one detector is on a data set, its own or another one (`on`), in two steps.

`predict` looks at the validation images, on a GPU; `measure` compares what was found with the annotations, without
one. Another measure, or a corrected one, predicts nothing again. `measure_set` is about what detectors train on.
"""


rule predict:
    input:
        dataset=jobs.measured_on,
        weights="<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/weights.safetensors",
    output:
        predictions="<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/{on}/predictions.npz",
        record="<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/{on}/predictions.npz.record.json",
    log:
        "<logs>/predict/{dataset}/{detector}/{arm}/seed{seed}/{on}.log",
    benchmark:
        "<benchmarks>/predict/{dataset}/{detector}/{arm}/seed{seed}/{on}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("predict").threads
    resources:
        mem_mb=jobs.memory("predict"),
        runtime=jobs.runtime("predict"),
        gpu=jobs.needs("predict").gpu,
    params:
        job=jobs.predict,
        device=device,
        loaders=loaders,
    message:
        "Predict on {wildcards.on}: {wildcards.detector} of {wildcards.dataset}, arm {wildcards.arm}, seed {wildcards.seed}"
    shell:
        "python -m gen4det.stages.predict --settings {params.job:q} --dataset {input.dataset:q}"
        " --weights {input.weights:q} --output {output.predictions:q} --device {params.device}"
        " --workers {params.loaders}"
        " 2>&1 | tee_log {log:q}"


rule measure:
    input:
        dataset=jobs.measured_on,
        predictions="<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/{on}/predictions.npz",
    output:
        metrics="<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/{on}/metrics.json",
        record="<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/{on}/metrics.json.record.json",
    log:
        "<logs>/measure/{dataset}/{detector}/{arm}/seed{seed}/{on}.log",
    benchmark:
        "<benchmarks>/measure/{dataset}/{detector}/{arm}/seed{seed}/{on}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("evaluate").threads
    resources:
        mem_mb=jobs.memory("evaluate"),
        runtime=jobs.runtime("evaluate"),
    params:
        job=jobs.measure,
    message:
        "Measure on {wildcards.on}: {wildcards.detector} of {wildcards.dataset}, arm {wildcards.arm}, seed {wildcards.seed}"
    shell:
        "python -m gen4det.stages.measure --settings {params.job:q} --dataset {input.dataset:q}"
        " --predictions {input.predictions:q} --output {output.metrics:q}"
        " 2>&1 | tee_log {log:q}"


rule measure_set:
    input:
        synthetic="<results>/synthetic/{dataset}/{engine}/set.json",
        filtered="<results>/synthetic/{dataset}/{engine}/set.json.record.json",
        labels=jobs.labels,
        records=jobs.shard_records,
        others=jobs.set_made,
    output:
        measures="<results>/synthetic/{dataset}/{engine}/measures.json",
        record="<results>/synthetic/{dataset}/{engine}/measures.json.record.json",
    log:
        "<logs>/measure_set/{dataset}/{engine}.log",
    benchmark:
        "<benchmarks>/measure_set/{dataset}/{engine}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plot").threads
    resources:
        mem_mb=jobs.memory("plot"),
        runtime=jobs.runtime("plot"),
    params:
        job=jobs.measure_set,
        others=jobs.set_made_by_kind,
    message:
        "Measure what {wildcards.engine} offers for {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.measure_set --settings {params.job:q} --synthetic {input.synthetic:q}"
        " --records {input.records:q} --others {params.others:q}"
        " --output {output.measures:q}"
        " 2>&1 | tee_log {log:q}"
