"""How right the labels of a set's labeller are, where the truth is known: in scenes that the miniature renders.

Part of the tables of studies with `label_quality: true`; of no table at the full scale, which has no such truth.
"""


rule label_quality:
    input:
        dataset=jobs.dataset,
        generator=label_jobs.fitted("generator"),
        head=label_jobs.fitted("head"),
        detector=label_jobs.detector,
        shard=label_jobs.shard("arrow"),
        images=label_jobs.shard("zip"),
        pretrained=jobs.models_of("label"),
    output:
        measures="<results>/synthetic/{dataset}/{engine}/label_quality.json",
        pictures="<results>/synthetic/{dataset}/{engine}/label_quality.zip",
        record="<results>/synthetic/{dataset}/{engine}/label_quality.json.record.json",
    log:
        "<logs>/label_quality/{dataset}/{engine}.log",
    benchmark:
        "<benchmarks>/label_quality/{dataset}/{engine}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("measure").threads
    resources:
        mem_mb=jobs.memory("measure"),
        runtime=jobs.runtime("measure"),
        gpu=jobs.needs("measure").gpu,
    params:
        job=label_jobs.quality,
        device=device,
    message:
        "Measure how right the labels of {wildcards.engine} for {wildcards.dataset} are"
    shell:
        "python -m gen4det.stages.label_quality --settings {params.job:q} --dataset {input.dataset:q}"
        " --generator {input.generator:q} --head {input.head:q} --detector {input.detector:q}"
        " --shard {input.shard:q} --output {output.measures:q} --device {params.device}"
        " 2>&1 | tee_log {log:q}"


rule label_table:
    input:
        measures=label_jobs.qualities,
        pictures=label_jobs.pictures,
    output:
        csv=report(
            "<results>/tables/{study}_labels.csv",
            caption="../report/labels.rst",
            category="Studies",
            subcategory="{study}",
            labels={"page": "labels, table"},
        ),
        markdown="<results>/tables/{study}_labels.md",
        pdf="<results>/figures/{study}_labels.pdf",
        png=report(
            "<results>/figures/{study}_labels.png",
            caption="../report/labels.rst",
            category="Studies",
            subcategory="{study}",
            labels={"page": "labels, figure"},
        ),
        record="<results>/tables/{study}_labels.csv.record.json",
    log:
        "<logs>/label_table/{study}.log",
    benchmark:
        "<benchmarks>/label_table/{study}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plot").threads
    resources:
        mem_mb=jobs.memory("plot"),
        runtime=jobs.runtime("plot"),
    params:
        job=label_jobs.table,
        rows=label_jobs.rows,
    message:
        "How right labels of {wildcards.study} are"
    shell:
        "python -m gen4det.stages.label_table --settings {params.job:q} --rows {params.rows:q}"
        " --figure {output.pdf:q} --output {output.csv:q}"
        " 2>&1 | tee_log {log:q}"
