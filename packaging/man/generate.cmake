# SPDX-License-Identifier: Apache-2.0
cmake_minimum_required(VERSION 3.25)
# cmake -DFRAME=noctule.conf.5.in -DREFERENCE=FILE|-DNOCTULE=PROGRAM -DOUT=noctule.conf.5 -P generate.cmake
# Puts the keys as the program itself knows them into the manual page.
if(NOCTULE)
  execute_process(COMMAND ${NOCTULE} --config-reference OUTPUT_VARIABLE reference COMMAND_ERROR_IS_FATAL ANY)
else()
  file(READ ${REFERENCE} reference)
endif()
file(READ ${FRAME} page)
string(FIND "${page}" "@REFERENCE@\n" at)
if(at EQUAL -1)
  message(FATAL_ERROR "${FRAME} has no line @REFERENCE@")
endif()
string(REPLACE "@REFERENCE@\n" "${reference}" page "${page}")
file(WRITE ${OUT} "${page}")
