// Everything for building and training networks: modules, layers, losses, initialisers, optimizers,
// data sets, and files.
#pragma once
#include <tutti/nn/atomic_file.h>
#include <tutti/nn/data/csv.h>
#include <tutti/nn/data/dataloader.h>
#include <tutti/nn/data/dataset.h>
#include <tutti/nn/functional.h>
#include <tutti/nn/init.h>
#include <tutti/nn/layers.h>
#include <tutti/nn/loss.h>
#include <tutti/nn/module.h>
#include <tutti/nn/optim.h>
#include <tutti/nn/safetensors.h>
#include <tutti/nn/utils.h>
