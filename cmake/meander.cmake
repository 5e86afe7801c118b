# SPDX-License-Identifier: Apache-2.0

# meander_folder(NAME DEPS folder... LIBS target... EXCLUDE file...): one folder, one library of all
# its .cc files. A new file is picked up by the next build.
function(meander_folder name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS;EXCLUDE" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/${name}/*.cc)
  foreach(file IN LISTS ARG_EXCLUDE)
    list(REMOVE_ITEM sources ${name}/${file})
  endforeach()
  if(sources)
    add_library(meander_${name} STATIC ${sources})
    set(scope PUBLIC)
  else()
    add_library(meander_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(meander_${name} ${scope} ${CMAKE_SOURCE_DIR})
  list(TRANSFORM ARG_DEPS PREPEND meander_)
  target_link_libraries(meander_${name} ${scope} ${ARG_DEPS} ${ARG_LIBS})
endfunction()

# meander_kernels(NAME file.inc option...): compiles one source of kernels once per instruction-set level into
# folder NAME; the program picks at run time (nn/simd/dispatch.h). MEANDER_ISA names the level and
# the namespace, MEANDER_VECTOR_BYTES its register width.
function(meander_kernels name source)
  if(NOT EXISTS ${CMAKE_SOURCE_DIR}/${source})
    return()
  endif()
  get_filename_component(stem ${source} NAME_WE)
  foreach(level IN ITEMS v2:16 v3:32 v4:64)
    string(REGEX REPLACE ":.*" "" isa ${level})
    string(REGEX REPLACE ".*:" "" bytes ${level})
    set(file ${CMAKE_BINARY_DIR}/kernels/${name}_${stem}_${isa}.cc)
    file(CONFIGURE OUTPUT ${file} CONTENT "#define MEANDER_ISA ${isa}\n#define MEANDER_VECTOR_BYTES ${bytes}\n#include \"${source}\"\n")
    target_sources(meander_${name} PRIVATE ${file})
    set_source_files_properties(${file} TARGET_DIRECTORY meander_${name} PROPERTIES
      COMPILE_OPTIONS "-march=x86-64-${isa};-O3;-ffp-contract=fast;-Wno-psabi;-Wno-ignored-attributes;${ARGN}"
      OBJECT_DEPENDS ${CMAKE_SOURCE_DIR}/${source})
  endforeach()
endfunction()

# meander_mixed_kernels(NAME source): compiles products in mixed precision once per way to multiply
# (nn/simd/mixed.inc); the program picks at run time.
function(meander_mixed_kernels name source)
  foreach(way IN ITEMS "bf16:0:-mavx512bf16" "amx:1:-mavx512bf16;-mamx-tile;-mamx-bf16")
    string(REGEX MATCH "^([a-z0-9]+):([01]):(.*)$" matched "${way}")
    set(way ${CMAKE_MATCH_1})
    set(amx ${CMAKE_MATCH_2})
    set(flags ${CMAKE_MATCH_3})
    set(file ${CMAKE_BINARY_DIR}/kernels/${name}_mixed_${way}.cc)
    file(CONFIGURE OUTPUT ${file} CONTENT "#define MEANDER_MIXED ${way}\n#define MEANDER_MIXED_AMX ${amx}\n#include \"${source}\"\n")
    target_sources(meander_${name} PRIVATE ${file})
    set_source_files_properties(${file} TARGET_DIRECTORY meander_${name} PROPERTIES
      COMPILE_OPTIONS "-march=x86-64-v4;${flags};-O3;-ffp-contract=fast;-Wno-psabi;-Wno-maybe-uninitialized"
      OBJECT_DEPENDS ${CMAKE_SOURCE_DIR}/${source})
  endforeach()
endfunction()

# meander_bench(NAME LIBS...): bench/<NAME>.cc as program bench_<NAME>, built when asked for.
function(meander_bench name)
  add_executable(bench_${name} EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/bench/${name}.cc)
  target_link_libraries(bench_${name} PRIVATE ${ARGN})
endfunction()

# meander_tests(LABEL FOLDER LIBS...): tests/<LABEL>/<FOLDER>/*_test.cc as one program, run by ctest.
function(meander_tests label folder)
  set(dir ${CMAKE_SOURCE_DIR}/tests/${label}/${folder})
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.cc)
  if(NOT sources)
    return()
  endif()
  string(REPLACE "/" "_" target ${label}_${folder})
  add_executable(${target} ${sources})
  target_link_libraries(${target} PRIVATE ${ARGN} GTest::gtest GTest::gtest_main GTest::gmock)
  add_test(NAME ${label}.${folder} COMMAND ${target} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${label}.${folder} PROPERTIES LABELS ${label} TIMEOUT 300
    ENVIRONMENT "MEANDER_PROGRAM=$<TARGET_FILE:meander>")
endfunction()

# The list of models is the list of files: models/<kind>.cc defines build_<kind>().
function(meander_model_registry)
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/models/*.cc)
  set(declarations "")
  set(entries "")
  foreach(file IN LISTS files)
    get_filename_component(kind ${file} NAME_WE)
    if(NOT kind STREQUAL "model")
      string(APPEND declarations "nn::Graph build_${kind}(const ModelSpec& spec);\n")
      string(APPEND entries "    {\"${kind}\", build_${kind}},\n")
    endif()
  endforeach()
  set(out ${CMAKE_BINARY_DIR}/generated/models/registry.inc)
  file(CONFIGURE OUTPUT ${out} CONTENT
    "// Made by the build from the files of models/.\n${declarations}constexpr Entry kRegistry[] = {\n${entries}};\n")
  if(TARGET meander_models)
    get_target_property(type meander_models TYPE)
    if(NOT type STREQUAL "INTERFACE_LIBRARY")
      target_include_directories(meander_models PRIVATE ${CMAKE_BINARY_DIR}/generated)
    endif()
  endif()
endfunction()
