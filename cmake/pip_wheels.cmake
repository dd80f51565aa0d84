# Makes the targets of messages usable where ROS 2 comes from pip wheels.
#
# The targets of the messages' Python libraries export folders of the machine that built them (its
# Python and numpy) as they are. In the pip wheels of ROS 2 these folders do not exist here, and
# CMake refuses such a target: drop them. Our own must not be exported either (CMake refuses that
# too where the environment lies in the source tree): keep them for the build alone.
#
# Call it after rosidl_generate_interfaces(), with the same name.
function(drop_missing_folders project)
  get_property(imported_targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS imported_targets)
    if(target MATCHES "__rosidl_generator_py$")
      get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
      set(existing "")
      foreach(folder IN LISTS folders)
        if(folder MATCHES "^\\$<" OR EXISTS "${folder}")
          list(APPEND existing "${folder}")
        endif()
      endforeach()
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${existing}")
    endif()
  endforeach()
  set(own_target ${project}__rosidl_generator_py)
  if(TARGET ${own_target})
    get_target_property(folders ${own_target} INTERFACE_INCLUDE_DIRECTORIES)
    list(TRANSFORM folders REPLACE "^(/.*)$" "$<BUILD_INTERFACE:\\1>")
    set_target_properties(${own_target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${folders}")
  endif()
endfunction()
