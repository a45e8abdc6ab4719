// All of func/: transforms, Jacobians, functional_call, stack_module_state, compile.
#pragma once
#include <tutti/func/compile.h>
#include <tutti/func/context.h>
#include <tutti/func/control_flow.h>
#include <tutti/func/custom_function.h>
#include <tutti/func/functional_call.h>
#include <tutti/func/jacobian.h>
#include <tutti/func/members_last.h>
#include <tutti/func/stack_module_state.h>
#include <tutti/func/transforms.h>
