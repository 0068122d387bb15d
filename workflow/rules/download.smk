"""Detection data: rendered, the user's own photographs, names alone, downloaded, or a subset of one of these.

Makes <results>/data/<dataset>/dataset.json, the descriptor every later stage receives, and what it points to.
Pretrained models are downloaded beside public data; their files are undeclared, so that cut downloads go on.
"""


rule render:
    output:
        "<results>/data/{dataset}/train.json",
        "<results>/data/{dataset}/train.arrow",
        "<results>/data/{dataset}/val.json",
        "<results>/data/{dataset}/train.zip",
        "<results>/data/{dataset}/val.zip",
        dataset="<results>/data/{dataset}/dataset.json",
        record="<results>/data/{dataset}/dataset.json.record.json",
    log:
        "<logs>/render/{dataset}.log",
    benchmark:
        "<benchmarks>/render/{dataset}.tsv"
    wildcard_constraints:
        dataset=jobs.datasets_from("miniature"),
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("data").threads
    resources:
        mem_mb=jobs.memory("data"),
        runtime=jobs.runtime("data"),
    params:
        job=jobs.data,
    message:
        "Render the miniature's data set {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.render --settings {params.job:q} --output {output.dataset:q}"
        " 2>&1 | tee_log {log:q}"


rule photographs:
    input:
        jobs.own_files,
    output:
        "<results>/data/{dataset}/train.json",
        "<results>/data/{dataset}/train.arrow",
        "<results>/data/{dataset}/val.json",
        dropped=report(
            "<results>/data/{dataset}/dropped.csv",
            caption="../report/dropped.rst",
            category="Data",
            labels={"data": "{dataset}", "page": "left out"},
        ),
        dataset="<results>/data/{dataset}/dataset.json",
        record="<results>/data/{dataset}/dataset.json.record.json",
    log:
        "<logs>/photographs/{dataset}.log",
    benchmark:
        "<benchmarks>/photographs/{dataset}.tsv"
    wildcard_constraints:
        dataset=jobs.datasets_from("photographs"),
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("data").threads
    resources:
        mem_mb=jobs.memory("data"),
        runtime=jobs.runtime("data"),
    params:
        job=jobs.data,
        masks=jobs.mask_detectors,
    message:
        "Check the photographs and annotations of {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.photographs --settings {params.job:q} --output {output.dataset:q}"
        " {params.masks}"
        " 2>&1 | tee_log {log:q}"


rule names:
    output:
        "<results>/data/{dataset}/train.json",
        "<results>/data/{dataset}/train.arrow",
        dataset="<results>/data/{dataset}/dataset.json",
        record="<results>/data/{dataset}/dataset.json.record.json",
    log:
        "<logs>/names/{dataset}.log",
    benchmark:
        "<benchmarks>/names/{dataset}.tsv"
    wildcard_constraints:
        dataset=jobs.datasets_from("names"),
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("data").threads
    resources:
        mem_mb=jobs.memory("data"),
        runtime=jobs.runtime("data"),
    params:
        job=jobs.data,
    message:
        "Take the names of {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.names --settings {params.job:q} --output {output.dataset:q}"
        " 2>&1 | tee_log {log:q}"


rule download:
    output:
        "<results>/data/{dataset}/train.json",
        "<results>/data/{dataset}/train.arrow",
        "<results>/data/{dataset}/val.json",
        dataset="<results>/data/{dataset}/dataset.json",
        record="<results>/data/{dataset}/dataset.json.record.json",
    log:
        "<logs>/download/{dataset}.log",
    benchmark:
        "<benchmarks>/download/{dataset}.tsv"
    wildcard_constraints:
        dataset=jobs.datasets_from("download"),
    localrule: True
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("data").threads
    resources:
        mem_mb=jobs.memory("data"),
        runtime=jobs.runtime("data"),
    params:
        job=jobs.data,
    message:
        "Download {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.download --settings {params.job:q} --output {output.dataset:q}"
        " 2>&1 | tee_log {log:q}"


rule download_model:
    output:
        about=f"{jobs.downloads.place}/{{model}}/download.json",
        record=f"{jobs.downloads.place}/{{model}}/download.json.record.json",
    log:
        "<logs>/download_model/{model}.log",
    benchmark:
        "<benchmarks>/download_model/{model}.tsv"
    wildcard_constraints:
        model=r"[\w.-]+",
    localrule: True
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("data").threads
    resources:
        mem_mb=jobs.memory("data"),
        runtime=jobs.runtime("data"),
    params:
        job=jobs.downloads.job,
    message:
        "Download {wildcards.model}"
    shell:
        "python -m gen4det.stages.download_model --settings {params.job:q} --output {output.about:q}"
        " 2>&1 | tee_log {log:q}"


rule subset:
    input:
        whole=jobs.whole,
    output:
        "<results>/data/{dataset}/train.json",
        "<results>/data/{dataset}/train.arrow",
        dataset="<results>/data/{dataset}/dataset.json",
        record="<results>/data/{dataset}/dataset.json.record.json",
    log:
        "<logs>/subset/{dataset}.log",
    benchmark:
        "<benchmarks>/subset/{dataset}.tsv"
    wildcard_constraints:
        dataset=jobs.datasets_from("subset"),
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("data").threads
    resources:
        mem_mb=jobs.memory("data"),
        runtime=jobs.runtime("data"),
    params:
        job=jobs.data,
    message:
        "Take a subset of the training images: {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.subset --settings {params.job:q} --whole {input.whole:q} --output {output.dataset:q}"
        " 2>&1 | tee_log {log:q}"
