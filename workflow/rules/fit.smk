"""Steps of engines that learn a model; training-free engines have no job here.

From the data set, and from what earlier steps made, to <results>/engines/<dataset>/<engine>/<step>/model, a folder
in the layout of the model's library. Checkpoints lie in the undeclared folder `work` beside it.
"""


rule fit:
    input:
        dataset=jobs.dataset,
        reads=jobs.reads("fit"),
        pretrained=jobs.models_of("fit"),
    output:
        model=directory("<results>/engines/{dataset}/{engine}/{step}/model"),
        losses="<results>/engines/{dataset}/{engine}/{step}/losses.csv",
        record="<results>/engines/{dataset}/{engine}/{step}/model.record.json",
    log:
        "<logs>/fit/{dataset}/{engine}/{step}.log",
    benchmark:
        "<benchmarks>/fit/{dataset}/{engine}/{step}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("fit").threads
    resources:
        mem_mb=jobs.memory("fit"),
        runtime=jobs.runtime("fit"),
        gpu=jobs.needs("fit").gpu,
    params:
        job=jobs.fit,
        reads=jobs.read_names("fit"),
        launcher=launcher,
        device=device,
        loaders=loaders,
        budget=budget,
    message:
        "Fit {wildcards.step} of {wildcards.engine} for {wildcards.dataset}"
    shell:
        "{params.launcher} gen4det.stages.fit --settings {params.job:q} --dataset {input.dataset:q}"
        " --reads {params.reads:q} --output {output.model:q} --device {params.device} --workers {params.loaders}"
        " {params.budget}"
        " 2>&1 | tee_log {log:q}"
