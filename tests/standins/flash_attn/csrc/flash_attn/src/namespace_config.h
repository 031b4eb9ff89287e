#pragma once
#define FLASH_NAMESPACE flash
