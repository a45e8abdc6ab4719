// Everything of tutti.
#pragma once
#include <tutti/autograd/autograd.h>
#include <tutti/config.h>
#include <tutti/core/cuda.h>
#include <tutti/core/ops.h>
#include <tutti/core/parallel.h>
#include <tutti/core/tree.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>
