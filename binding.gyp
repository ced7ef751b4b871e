# The build of record is native/CMakeLists.txt, run by cmake-js (npm run build:native). This file only hands over to it.
{
  "targets": [
    {
      "target_name": "pando",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake_js",
          "inputs": ["native/CMakeLists.txt"],
          "outputs": ["build/Release/pando.node"],
          "action": ["node", "scripts/build-native.mjs"]
        }
      ]
    }
  ]
}
